"""Writes tests/golden/dpm2_steps.inc: what diffusers' DPMSolverMultistepScheduler (DPM-Solver++ 2M, flow prediction) makes of
x, of the x0 prediction now and of the one before in each of five steps of shift 3. Needs torch and diffusers:
    python tests/golden/make_dpm2.py"""
import pathlib

import torch
from diffusers import DPMSolverMultistepScheduler

STEPS, SHIFT = 5, 3.0
torch.set_default_dtype(torch.float64)
s = 1 - torch.arange(STEPS + 1) / STEPS
sigmas = SHIFT * s / (1 + (SHIFT - 1) * s)
rows = []
for i in range(STEPS):
    row = []
    for unit in range(3):  # the step is linear: one input at a time is 1
        scheduler = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", algorithm_type="dpmsolver++",
                                                solver_type="midpoint", solver_order=2, lower_order_final=True, euler_at_final=False)
        scheduler.set_timesteps(STEPS)
        scheduler.sigmas = sigmas
        x, now, before = (torch.tensor([float(unit == k)]) for k in range(3))
        scheduler._step_index = i
        scheduler.lower_order_nums = min(i, 2)
        scheduler.model_outputs = [None, before if i > 0 else None]
        # step() turns velocities into x0 predictions: x0 = x - sigma v
        velocity = (x - now) / sigmas[i]
        row.append(scheduler.step(velocity, scheduler.timesteps[i], x).prev_sample.item())
    rows.append(row)
text = "".join("    {%s},\n" % ", ".join(repr(v) for v in row) for row in rows)
(pathlib.Path(__file__).parent / "dpm2_steps.inc").write_text("/* x, x0 now, x0 before; made by make_dpm2.py */\n" + text)
