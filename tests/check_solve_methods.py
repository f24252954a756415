#!/usr/bin/env python3
"""marble solve against others: --method NAME against TorchJD's aggregators (tests/golden/torchjd.json, made by make_torchjd.py),
and normalize: false, with lengths up to 1e7 apart, against exact fractions. $1 is the marble program."""
import itertools
import json
import os
import random
import subprocess
import sys
from fractions import Fraction

marble = sys.argv[1]
golden = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "torchjd.json")
failures = []


def solve(problem, *options):
    run = subprocess.run([marble, "solve", *options], input=json.dumps(problem), text=True, capture_output=True)
    if run.returncode != 0:
        failures.append(f"{options} {problem}: {run.stderr}")
        return None
    return json.loads(run.stdout)


def inner(gram, x, y):
    return sum(x[i] * gram[i][j] * y[j] for i in range(len(x)) for j in range(len(y)))


def same_direction(name, gram, found, wanted, tolerance):
    """Whether two directions, as combinations of gradients, differ by less than that of the longest term: weights of dependent
    gradients are not unique, directions are. Their lengths follow different rules."""
    longest = [max(abs(w) * gram[i][i] ** 0.5 for i, w in enumerate(x)) for x in (found, wanted)]
    lengths = [max(inner(gram, x, x), 0) ** 0.5 for x in (found, wanted)]
    if all(size < tolerance * most for size, most in zip(lengths, longest)):
        return  # both cancel out
    scaled = [[w / size for w in x] for x, size in zip((found, wanted), lengths)]
    off = [a - b for a, b in zip(*scaled)]
    error = max(inner(gram, off, off), 0) ** 0.5
    if not error < tolerance:
        failures.append(f"{name}: directions differ by {error:.3g}, {found} against {wanted}")


def shortest(name, gram, found, wanted, tolerance):
    """marble's direction is the shortest; TorchJD's comes close to it."""
    squares = [inner(gram, x, x) for x in (found, wanted)]
    most = max(gram[i][i] for i in range(len(gram)))
    if not squares[0] - 1e-12 * most <= squares[1] <= squares[0] + tolerance * most:
        failures.append(f"{name}: squares of the directions {squares}, {found} against {wanted}")


def against_torchjd():
    compared = {}
    for case in json.load(open(golden, encoding="utf-8")):
        gram = case["gram"]
        for method, tolerance in (("pcgrad", 1e-9), ("upgrad", 1e-4), ("cagrad", 2e-4), ("nash", 3e-3), ("mgda", 1e-4)):
            wanted = case.get(method)
            if wanted is None:
                continue
            raw = method == "mgda"
            answer = solve({"gram": gram, **({"normalize": False} if raw else {})}, *([] if raw else ["--method", method]))
            if answer:
                compare = shortest if raw else same_direction
                compare(f"{method}, {case['name']}", gram, answer["coefficient"], wanted, tolerance)
                compared[method] = compared.get(method, 0) + 1
    if any(compared.get(method, 0) < 8 for method in ("pcgrad", "upgrad", "cagrad", "nash", "mgda")):
        failures.append(f"too few cases were compared: {compared}")


def exact(gram):
    """argmin a'Ga with a >= 0, sum a = 1, in fractions: the best stationary point of all supports. G is regular."""
    n, best = len(gram), None
    for size in range(1, n + 1):
        for support in itertools.combinations(range(n), size):
            rows = [[Fraction(gram[i][j]) for j in support] + [Fraction(-1), Fraction(0)] for i in support]
            rows.append([Fraction(1)] * size + [Fraction(0), Fraction(1)])
            for c in range(size + 1):
                pivot = next(r for r in range(c, size + 1) if rows[r][c] != 0)
                rows[c], rows[pivot] = rows[pivot], rows[c]
                for r in range(size + 1):
                    if r != c and rows[r][c] != 0:
                        factor = rows[r][c] / rows[c][c]
                        rows[r] = [x - factor * y for x, y in zip(rows[r], rows[c])]
            alpha = [Fraction(0)] * n
            for at, i in enumerate(support):
                alpha[i] = rows[at][size + 1] / rows[at][at]
            value = inner([[Fraction(x) for x in row] for row in gram], alpha, alpha)
            if min(alpha) >= 0 and (best is None or value < best[0]):
                best = value, alpha
    return [float(a) for a in best[1]]


def lengths_apart():
    random.seed(5)
    for case in range(24):
        lengths = [10 ** random.choice([0, 3.5, 7]) for _ in range(4)]
        J = [[size * random.gauss(0, 1) for _ in range(6)] for size in lengths]
        gram = [[sum(x * y for x, y in zip(a, b)) for b in J] for a in J]
        wanted = exact(gram)
        answer = solve({"gram": gram, "normalize": False})
        for found, want in zip(answer["alpha"] if answer else [], wanted):
            if not abs(found - want) <= 1e-9 * want:
                failures.append(f"lengths {lengths}: alpha is {answer['alpha']}, exactly {wanted}")
                break


against_torchjd()
lengths_apart()
for options, problem in ((["--method", "upgrad"], {"gram": [[1]], "normalize": False}), (["--method", "nash"], {"gram": [[1]], "floor": 0.1}),
                         (["--method", "equal"], {"gram": [[1]], "linear": [1]}), (["--method", "pcgrad"], {"gram": [[1]], "cagrad_c": 0.5}),
                         (["--method", "cagrad"], {"gram": [[1]], "cagrad_c": 1}), (["--method", "gdpo"], {"gram": [[1]]})):
    run = subprocess.run([marble, "solve", *options], input=json.dumps(problem), text=True, capture_output=True)
    if run.returncode != 2 or "expected" not in run.stderr and "marble_reference" not in run.stderr:
        failures.append(f"{options} {problem}: exit code {run.returncode}, {run.stderr}")
for failure in failures:
    print(failure)
sys.exit(1 if failures else 0)
