"""Every dropout of a model: found, and switched off. Off is the default everywhere; a LoRA dropout is asked for."""

from torch import nn

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def dropouts(model: nn.Module) -> list[tuple[str, float]]:
    """Every dropout probability of a model: modules, and numbers in modules for functional dropout and router noise."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, DROPOUTS):
            found.append((name, float(module.p)))
        for key, value in vars(module).items():
            if ("drop" in key or "jitter" in key) and isinstance(value, float) and not isinstance(value, bool):
                found.append((f"{name}.{key}", value))
    return found


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0: modules, functional attention dropout, LayerDrop. LoRA's own is kept."""
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, DROPOUTS):
            module.p = 0.0
        for key, value in vars(module).items():
            if "drop" in key and type(value) is float:
                setattr(module, key, 0.0)
    config = getattr(model, "config", None)
    for key, value in vars(config).items() if config is not None else ():
        if "drop" in key and type(value) is float:
            setattr(config, key, 0.0)
