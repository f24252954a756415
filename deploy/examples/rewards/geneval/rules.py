"""GenEval's rules as DiffusionNFT and MARBLE apply them, on objects that were found already: plain Python, so that they can be
read and tested without a detector."""

NEAR = 0.1  # of both objects' sizes: how far apart their centres must be to count as apart


def relations(box, other):
    """Where a box lies from another: boxes are (left, top, right, bottom)."""
    offset, far = [], []
    for low, high in ((0, 2), (1, 3)):
        distance = (box[low] + box[high]) / 2 - (other[low] + other[high]) / 2
        slack = NEAR * (abs(box[high] - box[low]) + abs(other[high] - other[low]))
        offset.append(distance)
        far.append(max(abs(distance) - slack, 0) * (1 if distance > 0 else -1))
    length = (offset[0] ** 2 + offset[1] ** 2) ** 0.5
    if max(map(abs, far)) < 1e-3:
        return set()
    x, y = far[0] / length, far[1] / length
    return {name for name, yes in (("left of", x < -0.5), ("right of", x > 0.5), ("above", y < -0.5), ("below", y > 0.5)) if yes}


def score(include, found, colors):
    """include: the metadata's clauses. found: class -> boxes, surest first. colors(class, boxes) -> a colour each. Returns (mean over
    clauses, whether all is exactly right, why not). The mean falls below 0 where more than twice as many are found as asked for,
    and a wrong position adds 1 beside its 0: both as released, so that figures compare."""
    parts, reasons, matched = [], [], []
    for clause in include:
        name, want = clause["class"], clause["count"]
        boxes = found.get(name, [])
        right = len(boxes) == want
        parts.append(1 - abs(want - len(boxes)) / want)
        if not right:
            reasons.append(f"{len(boxes)} {name} instead of {want}")
            if "color" in clause or "position" in clause:
                parts.append(0.0)
        else:
            if "color" in clause:
                count = colors(name, boxes).count(clause["color"])
                parts.append(1 - abs(want - count) / want)
                if count != want:
                    right = False
                    reasons.append(f"{count} {name} {clause['color']} instead of {want}")
            if right and "position" in clause:
                wanted, target = clause["position"]
                if matched[target] is None:
                    right = False
                    reasons.append(f"nothing for {name} to be {wanted}")
                    parts.append(0.0)
                else:
                    if not all(wanted in relations(box, other) for box in boxes for other in matched[target]):
                        right = False
                        reasons.append(f"{name} not {wanted} the other")
                        parts.append(0.0)
                    parts.append(1.0)
        matched.append(boxes if right else None)
    return (sum(parts) / len(parts) if parts else 0.0), not reasons, "; ".join(reasons)
