"""Makes qp.json: quadratic programs with reference answers, by means that share nothing with src/rl/qp.c: every
support is tried (up to 9 variables) with a spectral solve of its optimality conditions and, of the optimal
points, the shortest is kept; larger ones as non-negative least squares. Needs numpy and scipy: python make_qp.py > qp.json"""
import itertools
import json

import numpy as np
from scipy.optimize import nnls


def by_supports(C, b, floor):
    """The least-norm minimiser of 1/2 a'Ca + b'a over sum a = 1, a >= floor."""
    k = len(C)
    scale = max(np.abs(C).max(), np.abs(b).max(), 1e-300)
    room = 1 - k * floor
    H, h = C / scale * room, b / scale + floor * C.sum(1) / scale
    best = None
    for size in range(1, k + 1):
        for S in map(list, itertools.combinations(range(k), size)):
            # the multiplier must not count in "least norm": eliminate the sum instead
            ones = np.full(size, 1 / size)
            Q = np.linalg.svd(np.ones((1, size)))[2][1:]
            x = ones
            if size > 1:
                A, y = Q @ H[np.ix_(S, S)] @ Q.T, -Q @ (H[np.ix_(S, S)] @ ones + h[S])
                l, V = np.linalg.eigh(A)
                d = V @ np.where(l > 1e-12, V.T @ y / np.maximum(l, 1e-12), 0)
                if np.abs(A @ d - y).max() > 1e-9:
                    continue
                x = ones + Q.T @ d
            if x.min() < -1e-11:
                continue
            full = np.zeros(k)
            full[S] = np.maximum(x, 0)
            value = 0.5 * full @ H @ full + h @ full
            key = (value, full @ full)
            if best is None or value < best[0] - 1e-13 or (value < best[0] + 1e-13 and key[1] < best[1] - 1e-10):
                best = (*key, full)
    return floor + room * best[2]


def by_nnls(A):
    """The shortest point of the convex hull of the rows of A."""
    x = nnls(np.vstack([A.T, np.ones(len(A))]), np.append(np.zeros(A.shape[1]), 1), maxiter=10000)[0]
    return x / x.sum()


def random_rows(rng, kind, k):
    width = {"full": k + 4, "low": max(1, k // 2), "rank one": 1, "few signs": 3}.get(kind, k + 2)
    A = rng.integers(-1, 2, (k, width)).astype(float) if kind == "few signs" else rng.standard_normal((k, width))
    if kind == "duplicates":
        A[1::2] = A[0]
    if kind == "opposite":
        A[1::2] = -A[0 : k - k % 2 : 2]
    if kind == "alike":
        A = np.abs(A) + 2
    if kind == "zero":
        A *= 0
    if kind not in ("few signs", "zero"):
        A /= np.linalg.norm(A, axis=1, keepdims=True)
    return A


def main():
    rng = np.random.default_rng(20)
    cases = []
    kinds = ["full", "low", "rank one", "few signs", "duplicates", "opposite", "alike", "zero"]
    for kind in kinds:
        for k in [1, 2, 3, 4, 5, 7]:
            A = random_rows(rng, kind, k)
            variant = (k + kinds.index(kind)) % 3
            floor = 0.4 / k if variant == 1 else 0.0
            b = np.round(rng.standard_normal(k), 2) * 0.5 if variant == 2 else np.zeros(k)
            C = np.round(A @ A.T, 15)
            C = (C + C.T) / 2
            cases.append((f"{kind}, {k}", C, b if variant == 2 else None, floor, by_supports(C, b, floor), b))
    for k in [9, 12, 16, 20]:
        for kind in ["full", "alike", "low"]:
            A = random_rows(rng, kind, k)
            # without a unique answer least squares gives some optimal point: only its objective is compared
            cases.append((f"{kind}, {k}", A @ A.T, None, 0.0, by_nnls(A), np.zeros(k)))
    out = []
    for name, C, b, floor, alpha, linear in cases:
        out.append({"name": name, "gram": C.tolist(), "floor": floor, "alpha": alpha.tolist(),
                    "objective": float(0.5 * alpha @ C @ alpha + linear @ alpha),
                    "unique": not name.startswith("low") or len(C) < 9})
        if b is not None:
            out[-1]["linear"] = b.tolist()
    print("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]")


if __name__ == "__main__":
    main()
