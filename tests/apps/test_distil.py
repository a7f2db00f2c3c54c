"""The command that made the trunk that ships: a run that was cut goes on to the same weights."""

import distil
import h5py
import keras
import numpy as np
import pytest
from PIL import Image


@pytest.mark.everything
def test_a_run_that_was_cut_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    small = dict(STEPS_AN_EPOCH=2, SIZES=(32, 64), PIXELS=4 * 64**2, STATISTICS=1)
    for name, value in small.items():
        monkeypatch.setattr(distil, name, value)
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "pictures" / "noise.png")

    def run(name):
        distil.main(["--out", str(tmp_path / name), "--steps", "6", "--pictures", str(tmp_path / "pictures")])
        with h5py.File(tmp_path / name / distil.NAME) as file:
            found = {}
            file.visititems(lambda path, one: found.update({path: one[()]} if isinstance(one, h5py.Dataset) else {}))
        return found

    whole = run("whole")
    assert len(whole) > 100 and all(one.dtype == np.float16 for one in whole.values())
    with monkeypatch.context() as patch:

        def cut(logger, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

        patch.setattr(keras.callbacks.CSVLogger, "on_epoch_end", cut)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    assert not (tmp_path / "cut" / distil.NAME).exists()
    again = run("cut")
    for name, one in whole.items():
        np.testing.assert_allclose(again[name], one, rtol=2e-2, atol=2e-3, err_msg=name)
    assert any(np.ptp(one) > 0.1 for one in whole.values())
