"""Writes tests/golden/schedules.inc: the sigmas of diffusers' FlowMatchEulerDiscreteScheduler with shift 3 for 1 to 50 steps, each
with the 0 at its end. Needs torch and diffusers:
    python tests/golden/make_schedules.py"""
import pathlib

from diffusers import FlowMatchEulerDiscreteScheduler

rows = []
for steps in range(1, 51):
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(steps)
    assert len(scheduler.sigmas) == steps + 1
    rows.append([f"{sigma:.9g}" for sigma in scheduler.sigmas.tolist()])
text = "".join("    %s,\n" % ", ".join(row) for row in rows)
(pathlib.Path(__file__).parent / "schedules.inc").write_text("/* made by make_schedules.py */\n" + text)
