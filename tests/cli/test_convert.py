import shutil

from phystrain import datasets


def test_convert_and_use(call, refuse, tmp_path):
    shutil.copy(datasets.path("aspirin"), tmp_path / "train.xyz.xz")
    done = call("convert", "train.xyz.xz", "--output", "train.store")
    assert done.code == 0, done.err
    assert "frames per second" in done.out
    assert "train.store: 100 frames, 2100 atoms" in done.out
    assert "forces in 100 of 100 frames" in done.out
    for name in ("train.store", "train.xyz.xz"):
        checked = call("check", name)
        assert checked.code == 0, checked.out
        assert "energy in 100 of 100 frames" in checked.out
    again = call("convert", "train.store", "train.xyz.xz", "--output", "train2.store")
    assert "wrote 200 frames" in again.out
    refuse("convert", "nosuch.xyz", "--output", "b.store", words="no such file")
    refuse("convert", "train.xyz.xz", "--output", "b.store", "--energy", "dft", words=("'dft'", "key of energy"))
    refuse("check", "train.store", "--energy", "dft", words=("train.store", "'dft'"))
    refuse("convert", "train.store", "--output", "train.store", words="another --output")
    content = (tmp_path / "train.store" / "energy.bin").read_bytes()
    (tmp_path / "train.store" / "energy.bin").write_bytes(content[8:] + content[:8])
    refuse("check", "train.store", words=("train.store is damaged", "not those that were written"))
    (tmp_path / "train.store" / "cell.bin").write_bytes(b"")
    refuse("check", "train.store", words=("train.store is damaged", "cell.bin"))
    assert not (tmp_path / "b.store").exists()
