"""Every way that a command can end is one line on standard error and an honest exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import click
import pytest

from vidswap import errors
from vidswap.cli.app import COMMANDS, cli, run

HANG_SECONDS = 60.0


def spawn(*args: str, script: str | None = None, **kwargs) -> subprocess.Popen:
    """A real process: ``vidswap`` with these arguments, or a script."""
    code = ["-c", textwrap.dedent(script)] if script else ["-m", "vidswap"]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": ""}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **kwargs}
    return subprocess.Popen([sys.executable, *code, *args], env=environment, **options)


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=HANG_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process.returncode, out, err


@pytest.fixture
def failing(monkeypatch):
    """Adds the command ``fail`` to the real group; it raises what it is told to."""
    module = types.ModuleType("command_that_fails")
    box: dict[str, BaseException] = {}

    @click.command("fail")
    @click.pass_context
    def fail(ctx: click.Context) -> None:
        raise box["error"]

    module.fail = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "command_that_fails", module)
    monkeypatch.setitem(COMMANDS, "fail", ("command_that_fails:fail", "Fails."))

    def call(error: BaseException, *before: str) -> int:
        box["error"] = error
        return run([*before, "fail"])

    return call


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.VidswapError, 1),
        (errors.UsageError, 2),
        (errors.InputError, 3),
        (errors.NoFaceError, 3),
        (errors.OutputError, 4),
        (errors.WeightsError, 5),
        (errors.BatchError, 6),
    ],
)
def test_errors_for_users_are_one_line_with_their_exit_code(failing, capsys, kind, code):
    assert failing(kind("clip.mp4 is bad: do this")) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vidswap: error: clip.mp4 is bad: do this")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_interruptions(failing, capsys):
    for error in (KeyboardInterrupt(), errors.Interrupted("stopped at frame 9; run it again")):
        assert failing(error) == 130
    assert capsys.readouterr().err == (
        "vidswap: interrupted\nvidswap: stopped at frame 9; run it again\n"
    )


def test_faults_of_ours_keep_their_traceback_with_v_only(failing, capsys):
    error = RuntimeError("odd\nthing")
    error.__notes__ = ["in stage 'mix', item 4"]
    assert failing(error) == 1
    err = capsys.readouterr().err
    assert err == (
        "vidswap: error: unexpected RuntimeError: odd thing (in stage 'mix', item 4); "
        "run `vidswap -v ...` for the details\n"
    )
    assert failing(error, "-v") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "raise box" in err
    assert err.splitlines()[-1].startswith("vidswap: error: unexpected RuntimeError: odd thing")


def test_out_of_memory(failing, capsys):
    for error in (MemoryError(), ImportError("a.so: failed to map segment from shared object")):
        assert failing(error) == 1
        assert "error: out of memory: close other programs" in capsys.readouterr().err
    cuda = type("OutOfMemoryError", (RuntimeError,), {})
    assert failing(cuda("CUDA out of memory. Tried to allocate 2 GiB")) == 1
    err = capsys.readouterr().err
    assert "out of GPU memory" in err and "--device cpu" in err and err.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_that_nobody_caught(failing, capsys, number):
    assert failing(OSError(number, os.strerror(number), "out.mp4")) == 4
    assert "error: cannot write out.mp4 (" in capsys.readouterr().err


def test_names_of_files_cannot_break_the_line_or_the_terminal(failing, capsys):
    assert failing(errors.InputError("no such file: a\nb\x1b[31m.mp4")) == 3
    assert capsys.readouterr().err == "vidswap: error: no such file: a b\\x1b[31m.mp4\n"


def test_exit_codes_that_commands_choose_pass_through(failing):
    assert failing(SystemExit(3)) == 3
    assert failing(SystemExit(None)) == 0
    assert failing(click.exceptions.Exit(1)) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["swp"], "no such command 'swp': did you mean 'swap'? (see `vidswap --help`)"),
        (["swap"], "Missing argument 'TARGET' (see `vidswap swap --help`)"),
        (["--nope"], "No such option"),
        (["swap", "a.mp4", "-o", "b.mp4", "--strengh", "1"], "--strength"),
        (["config", "shw"], "(see `vidswap config --help`)"),
    ],
)
def test_wrong_use_is_one_line_and_2(capsys, args, message):
    assert run(args) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""


def test_no_command_shows_the_help_but_is_wrong_use(capsys):
    assert run([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Commands:" in err and "error" not in err.split("Exit codes")[0]


# ------------------------------------------------------------------ real processes


def test_help_is_quick_and_loads_no_network_package():
    code, out, err = ended(
        spawn(
            script="""
            import sys, time
            from vidswap.cli import run
            code = run(["--help"])
            heavy = {"torch", "numpy", "av", "yaml", "tqdm", "PIL"} & set(sys.modules)
            print("HEAVY", sorted(heavy), "CPU", time.process_time(), code)
            """
        )
    )
    assert code == 0 and err == ""
    line = out.splitlines()[-1].split()
    assert line[:2] == ["HEAVY", "[]"]
    assert float(line[3]) < 0.3 and line[4] == "0"  # seconds of CPU: the clock of a busy machine
    assert "swap clip.mp4 -s synthetic:7" in out


def test_exit_codes_of_the_real_script(tmp_path):
    both = [spawn("config", "show", "--set", "mix.strenth=1"), spawn("config", "show")]
    code, out, err = ended(both[0])
    assert (code, out) == (2, "")
    assert err == (
        "vidswap: error: unknown setting 'mix.strenth' (--set): did you mean 'mix.strength'?\n"
    )
    code, out, err = ended(both[1])
    assert (code, err) == (0, "") and "  strength: 1.0\n" in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_below_stdout_is_4():
    with open("/dev/full", "w") as full:
        code, _, err = ended(spawn("config", "show", stdout=full))
    assert code == 4 and err.startswith("vidswap: error: cannot write") and err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_went_away_is_silent():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, _, err = ended(spawn("config", "show", stdout=writing))
    finally:
        os.close(writing)
    assert (code, err) == (141, "")


WAITING = """
    import sys, time, click
    from vidswap.cli import app
    @click.command()
    def wait():
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            if {stubborn}:
                print("ready", flush=True)
                time.sleep(60)
            raise
    app.COMMANDS["wait"] = ("__main__:wait", "")
    app.main(["wait"])
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("stubborn", [False, True])
def test_ctrl_c_is_130_and_twice_is_at_once(stubborn):
    process = spawn(script=WAITING.format(stubborn=stubborn))
    for _ in range(2 if stubborn else 1):
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130
    assert "Traceback" not in err
    assert err.strip().splitlines()[0] == "vidswap: stopping; Ctrl-C again stops at once"
    assert ("vidswap: interrupted" in err) is not stubborn


# ------------------------------------------------------------------ the group


def test_every_command_is_there_and_the_help_says_of_it_what_its_file_says():
    context = click.Context(cli)
    for name, (_, line) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert isinstance(command, click.Command) and command.name == name
        assert line.endswith(".") and len(line) < 60
        assert run([name, "--help"]) == 0


def test_version(capsys):
    from vidswap import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"vidswap, version {__version__}\n"
