"""The command line: what it explains, accepts and refuses, with data and networks of a user."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from running import SMALL, assert_bitwise, epochs_kept, refused

from pcbook.__main__ import cli, main
from pcbook.emergence.energy_efficiency import SIZES
from pcbook.runs import parts
from pcbook.runs.own import load_data
from pcbook.runs.parts import spread

ENERGY = ["run", "energy-efficiency"]
pytestmark = pytest.mark.slow


# --- help ---


@pytest.mark.parametrize(
    "words", [[], ["run"], *([name] for name in cli.commands if name != "run")]
)
def test_every_command_has_help_with_an_example(words, capsys):
    main([*words, "--help"])
    said = capsys.readouterr().out
    example = f"python -m pcbook {words[0] if words else 'run energy-efficiency'}"
    assert example in said


@pytest.mark.parametrize("name", ["energy-efficiency", "energy-controls", "training"])
def test_help_of_an_experiment_has_its_options_and_examples_that_are_accepted(name, capsys):
    main(["run", name, "--help"])
    said = capsys.readouterr().out
    for word in ("--data", "--seeds", "--epochs", "--rate", "--out", "--devices", "--coordinator"):
        assert word in said
    examples = re.findall(r"^ +python -m pcbook run (\S+)(.*)", said, re.MULTILINE)
    assert examples
    for command, arguments in examples:
        run = cli.commands["run"].get_command(None, command)
        given = spread(arguments.split(), "--rate", "--only")
        assert run.make_context(command, given).params["out"]


@pytest.mark.parametrize("name", ["energy-efficiency", "energy-controls"])
def test_help_has_the_defaults_of_each_data_set(name, capsys):
    main(["run", name, "--help"])
    said = capsys.readouterr().out
    for data, size in SIZES.items():
        assert re.search(rf"{data} +{size.rate:g}, {size.epochs} epochs", said)


def test_list_names_every_experiment(capsys):
    main(["list"])
    said = capsys.readouterr().out
    names = {line.split()[0] for line in said.splitlines()}
    assert {"energy-efficiency", "energy-controls", "training", "graph_training"} <= names


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "0 is not in the range"),
        (["--seeds", "1000000000"], "is not in the range"),
        (["--loss", "mean"], "'mean' is not one of 'pre', 'post', 'post+weights'"),
        (["--rate", "fast"], "'fast' is not a valid float"),
        (["--colour", "red"], "No such option"),
        ([], "Missing option '--out'"),
    ],
)
def test_a_bad_command_ends_with_a_sentence(arguments, message, capsys, tmp_path):
    out = ["--out", tmp_path / "x"] if arguments else []
    assert message in refused([*ENERGY, *out, *arguments], capsys, code=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "faces"], "--data faces: must be one of digits, mnist14"),
        (["--network", "GRUX"], "--network GRUX: must be one of recurrent, bias"),
        (["--network", "absent.py:NET"], "absent.py is not there"),
        (["--network", "pcbook.core.models:mlp"], "is a function, must be a pcbook.emergence"),
        (["--network", "pcbook.core.models:"], "must be package.module:NAME"),
    ],
)
def test_what_cannot_be_done_ends_with_a_sentence(arguments, message, capsys, tmp_path):
    assert message in refused([*ENERGY, "--out", tmp_path / "x", *arguments], capsys)


def test_networks_that_this_machine_cannot_hold_are_refused_before_they_are_made(tmp_path, capsys):
    many = ["--seeds", "100000", "--rate", *(f"0.00{i}" for i in range(1, 10))]
    said = refused([*ENERGY, "--out", tmp_path / "x", "--steps", "2", *many], capsys)
    assert "900000 networks need about 132.7 GB, this machine has" in said


def test_an_unknown_variant_ends_with_a_sentence(tmp_path, capsys):
    arguments = ["run", "energy-controls", "--out", tmp_path / "x", "--only", "GRU", "RNN"]
    assert "--only 'RNN': must be among 'recurrent', 'recurrent, r" in refused(arguments, capsys)


@pytest.mark.parametrize("command", ["status", "report", "plot", "resume", "list"])
def test_a_folder_without_a_run_is_refused(command, tmp_path, capsys):
    assert "holds no" in refused([command, tmp_path], capsys)


# --- data of a user ---


def own_images(folder, name="own.npz"):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    x = (rng.uniform(size=(120, 6, 6)) * 60 + 40 * y[:, None, None]).astype(np.uint8)
    np.savez(folder / name, x_train=x, y_train=y, x_test=x, y_test=y)
    return x, y


def write_images(folder, x, y):
    for number, (image, label) in enumerate(zip(x, y)):
        place = folder / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:03}.png")


def test_images_of_a_user_are_trained_on(tmp_path, runs):
    own_images(tmp_path)
    code, said = runs.finish("own", "--data", str(tmp_path / "own.npz"), "--batch-size", "5")
    assert code == 0, said
    assert runs.results("own")["weights"].shape == (2, 36, 36)


def test_a_folder_of_images_is_read_as_the_same_images_in_a_file(tmp_path):
    x, y = own_images(tmp_path)
    for split in ("train", "test"):
        write_images(tmp_path / "images" / split, x, y)
    file, folder = (load_data(str(tmp_path / name)) for name in ("own.npz", "images"))
    by_class = np.argsort(y, kind="stable")
    for split in ("train", "test"):
        for name in (f"x_{split}", f"y_{split}"):
            np.testing.assert_array_equal(getattr(folder, name), getattr(file, name)[by_class])


def test_without_a_test_folder_each_fifth_image_of_a_class_is_for_the_test(tmp_path):
    x, y = own_images(tmp_path)
    write_images(tmp_path / "images", x, y)
    found = load_data(str(tmp_path / "images"))
    assert np.bincount(found.y_train).tolist() == [24] * 4
    assert np.bincount(found.y_test).tolist() == [6] * 4
    rows = {row.tobytes() for row in (found.x_train, found.x_test) for row in row}
    assert rows == {image.tobytes() for image in x.reshape(120, 36).astype(np.float32) / 255}


def test_images_in_colour_have_three_numbers_a_pixel(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3), np.uint8)
    write_images(tmp_path / "images", x, np.zeros(10, int))
    assert load_data(str(tmp_path / "images")).x_train.shape == (8, 60)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: Image.new("L", (7, 6)).save(f / "class 0/x.png"), "must have the same size"),
        (lambda f: (f / "class 0/x.png").write_bytes(b"no"), "is not an image that can be read"),
        (lambda f: Image.new("I;16", (6, 6)).save(f / "class 0/x.png"), "more than 8 bits"),
        (lambda f: [shutil.rmtree(p) for p in f.iterdir()], "no images for train"),
    ],
)
def test_a_folder_that_would_be_misread_is_refused(spoil, message, tmp_path):
    write_images(tmp_path / "images", *own_images(tmp_path))
    spoil(tmp_path / "images")
    with pytest.raises(ValueError, match=message):
        load_data(str(tmp_path / "images"))


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_images_are_read_as_rows_of_pixels_from_0_to_1(kind, tmp_path):
    rng = np.random.default_rng(0)
    bytes_of = {name: rng.integers(0, 256, (4, 2, 3)) for name in ("x_train", "x_test")}
    x = {n: b.astype(kind) if kind is np.uint8 else b / 255 for n, b in bytes_of.items()}
    np.savez(tmp_path / "own.npz", **x, y_train=np.arange(4), y_test=np.arange(4))
    found = load_data(str(tmp_path / "own.npz"))
    for name, images in bytes_of.items():
        loaded = getattr(found, name)
        assert loaded.dtype == np.float32
        np.testing.assert_allclose(loaded, images.reshape(4, 6) / 255, rtol=1e-6)


# --- networks of a user ---

NETWORK = """
from pcbook.emergence.energy_efficiency import RECURRENT

MINE = RECURRENT._replace(name="mine")
"""
MODEL = """
from pcbook.core.models import mlp

MINE = mlp((64, 16, 10))._replace(name="mine")
WRONG = mlp((64, 16, 9))
"""


def test_a_network_of_a_user_is_trained_and_its_file_is_recorded(tmp_path, runs):
    """It is the book's own under another name, so the result is the book's."""
    (tmp_path / "net.py").write_text(NETWORK, encoding="utf-8")
    code, said = runs.finish("net", "--network", f"{tmp_path / 'net.py'}:MINE")
    assert code == 0, said
    assert_bitwise(
        {name: runs.results("net")[name] for name in ("weights", "loss", "curve", "decoded")},
        {name: runs.results("whole")[name] for name in ("weights", "loss", "curve", "decoded")},
    )
    note = json.loads((runs.folder / "net/results.json").read_text(encoding="utf-8"))
    assert note["settings"]["network"] == "mine"
    assert any(name.endswith("net.py") for name in note["record"][0]["code"])


def test_a_network_with_several_arrays_is_kept_by_their_names(runs):
    code, said = runs.finish("bias", "--network", "bias", "--epochs", "2")
    assert code == 0, said
    assert runs.results("bias")["weights['W']"].shape == (2, 64, 64)
    assert runs.results("bias")["weights['b']"].shape == (2, 64)


def test_a_model_of_a_user_learns_to_name_the_class(tmp_path, runs, capsys):
    (tmp_path / "net.py").write_text(MODEL, encoding="utf-8")
    training = ["run", "training", "--quiet", "--seeds", "2", "--epochs", "6", "--rate", "0.01"]
    training += ["--checkpoint-every", "1", "--network", f"{tmp_path / 'net.py'}:MINE"]
    code, said = runs.finish("model", settings=training)
    assert code == 0, said
    found = runs.results("model")
    assert found["weights[0].W"].shape == (2, 16, 64)
    assert found["test_accuracy"].shape == (6, 2)
    assert (found["test_accuracy"][-1] > 0.85).all()
    assert "test accuracy" in said
    wrong = [*training[:-1], f"{tmp_path / 'net.py'}:WRONG", "--out", tmp_path / "x"]
    assert "two images give (2, 9), must give (2, 10)" in refused(wrong, capsys)


def test_a_model_trained_with_a_stop_ends_bitwise_as_one_without(runs):
    training = ["run", "training", "--quiet", "--epochs", "4", "--method", "inference-learning"]
    assert runs.finish("learned", settings=training)[0] == 0
    code, said = runs.finish("learned-twice", "--until", "2", settings=training)
    assert code == 0, said
    assert runs.finish("learned-twice", settings=training)[0] == 0
    assert_bitwise(runs.results("learned-twice"), runs.results("learned"))


# --- resume, status, report, plot ---


def test_resume_goes_on_by_the_command_that_began_the_run(runs, stopped):
    code, said = runs.finish(None, settings=["resume", str(runs.folder / stopped)])
    assert code == 0, said
    assert_bitwise(runs.results(stopped), runs.results("whole"))
    note = json.loads((runs.folder / stopped / "results.json").read_text(encoding="utf-8"))
    assert [entry["command"].split()[3] for entry in note["record"]] == ["run", "resume"]


def test_resume_after_the_folder_was_moved_and_renamed(runs, stopped, tmp_path):
    place = tmp_path / "moved"
    shutil.move(runs.folder / stopped, place)
    code, said = runs.finish(None, settings=["resume", str(place)])
    assert code == 0, said
    assert (place / "results.json").exists()


def test_status_says_how_far_a_run_is(runs, stopped, capsys):
    main(["status", str(runs.folder / stopped)])
    said = capsys.readouterr().out
    epoch = int(re.search(r"epoch (\d+) of 60", said)[1])
    assert epoch >= max(epochs_kept(runs.folder / stopped))
    assert (
        "checkpoints of epochs " + "  ".join(map(str, epochs_kept(runs.folder / stopped))) in said
    )
    main(["status", str(runs.folder / "whole")])
    assert "done, 60 epochs" in capsys.readouterr().out
    main(["list", str(runs.folder)])
    assert re.search(r"whole +energy-efficiency, digits: done", capsys.readouterr().out)


def test_a_report_holds_the_numbers_and_figures_and_escapes_every_text(runs, tmp_path, capsys):
    folder = tmp_path / "<script>x"
    shutil.copytree(runs.folder / "whole", folder)
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    settings["data"] = "<img src=x onerror=alert(1)>.npz"
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    main(["report", str(folder)])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.npz" in page
    assert page.count('<img src="data:image/png;base64,') == 2
    assert not re.search(r"https?://(?!www\.w3)", page)
    last = runs.results("whole")["preactivation"].mean(0, dtype=float)
    assert f"{last[-1]:.4g}" in page
    assert f"Written: {folder / 'report.html'}" in capsys.readouterr().out


def test_curves_are_drawn_also_of_a_run_that_goes_on(runs, stopped, tmp_path):
    for name, head in (("x.png", b"\x89PNG"), ("x.pdf", b"%PDF"), ("x.svg", b"<?xml")):
        main(["plot", str(runs.folder / stopped), "--to", str(tmp_path / name)])
        assert (tmp_path / name).read_bytes().startswith(head)


def test_a_picture_of_a_kind_that_is_not_known_is_refused(runs, tmp_path, capsys):
    said = refused(["plot", runs.folder / "whole", "--to", tmp_path / "x.doc"], capsys)
    assert "must end in .png, .svg, .pdf" in said


def test_progress_in_a_log_is_a_line_and_not_a_bar(runs):
    code, said = runs.finish("loud", settings=[word for word in SMALL if word != "--quiet"])
    assert code == 0
    assert re.match(r"loud: epoch 1 of 60, loss \d\.\d+\n", said)
    assert "\r" not in said
    assert len([line for line in said.splitlines() if line.startswith("loud: epoch")]) < 5


# --- the programs of experiments/ ---

PROGRAM = """
\"\"\"Count.\"\"\"
import os, signal
from pcbook.runs.parts import run

def one():
    os.kill(os.getpid(), signal.SIGTERM)
    return 1

run(__file__, __doc__, {"seeds": 1}, lambda: {("one",): one, ("two",): lambda: 2}, print)
"""


def test_an_experiment_is_stopped_after_a_part_and_goes_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "experiments/count.py").write_text(PROGRAM.strip(), encoding="utf-8")
    monkeypatch.setattr(parts.results, "ROOT", tmp_path)
    monkeypatch.setattr(parts.results, "RESULTS", tmp_path / "results")
    said = refused(["run", "count"], capsys, code=75)
    assert "Stopped by SIGTERM. 1 parts were computed and are kept." in said
    main(["run", "count"])
    assert "{'one': 1, 'two': 2}" in capsys.readouterr().out
    assert "--only 'three': must be among one, two" in refused(
        ["run", "count", "--only", "three"], capsys
    )
    main(["list"])
    assert re.search(r"count +Count", capsys.readouterr().out)
