"""The command itself: help, tab completion, installation."""

import os
import subprocess
import sys
import venv

import pytest
from conftest import ROOT


def command(*arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=600, **options)


def test_help_lists_groups_and_values_without_torch():
    code = "import sys; sys.argv = ['rmlab', '--help']\nfrom rmlab.commands.train import main\n"
    code += "try:\n    main()\nfinally:\n"
    code += "    print('TORCH', 'torch' in sys.modules)"
    done = command(sys.executable, "-c", code)
    assert "loss: centered, margin, plain" in done.stdout
    assert "learning_rate: 0.001" in done.stdout
    assert "TORCH False" in done.stdout


def test_tab_completion_offers_options():
    """What the shell function asks for at `rmlab loss=<TAB>`."""
    environment = {**os.environ, "COMP_LINE": "rmlab loss=", "COMP_POINT": "11", "PYTHONPATH": str(ROOT)}
    done = command(sys.executable, "-m", "rmlab.commands.train", "-sc", "query=bash", env=environment)
    assert {"loss=centered", "loss=margin", "loss=plain"} <= set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_installed_rmlab_brings_its_configs_from_any_directory(kind, tmp_path):
    """The command of each kind of installation composes the same config elsewhere (dependencies are borrowed)."""
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True, system_site_packages=False)
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python*/site-packages"))
    borrowed = [p for p in sys.path if p.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    if kind == "editable":
        target = ["-e", str(ROOT)]
    else:
        built = command(sys.executable, "-m", "build", f"--{kind}", "-o", str(tmp_path / "dist"), str(ROOT))
        assert built.returncode == 0, built.stderr
        target = [str(next((tmp_path / "dist").iterdir()))]
    installed = command(str(python), "-m", "pip", "install", "--no-deps", "--force-reinstall", *target)
    assert installed.returncode == 0, installed.stderr
    done = command(str(environment / "bin" / "rmlab"), "--cfg", "job", "loss=margin", cwd=tmp_path)
    assert "margin: 1.0" in done.stdout, done.stderr
    where = command(str(python), "-c", "import rmlab.runner.config as c; print(c.CONF)", cwd=tmp_path).stdout.strip()
    assert where == (str(ROOT / "conf") if kind == "editable" else str(site / "rmlab" / "conf"))
