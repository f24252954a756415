#!/bin/sh
# marble solve: answers, options of the problem, and what it says to bad input. $1 is the marble program.
marble=$1
failures=0
# gives WHAT INPUT CODE PATTERN...: exit code, and every pattern found in what is printed
gives() {
    what=$1 input=$2 want=$3
    shift 3
    text=$(printf '%s' "$input" | "$marble" solve 2>&1)
    code=$?
    if [ $code -ne "$want" ]; then
        echo "$what: exit code $code, wanted $want: $text"
        failures=1
    fi
    for pattern in "$@"; do
        if ! printf '%s\n' "$text" | grep -qF -- "$pattern"; then
            echo "$what: \"$pattern\" is not in: $text"
            failures=1
        fi
    done
}
gives "orthogonal" '{"gram": [[1, 0], [0, 100]]}' 0 '"alpha": [0.5, 0.5]' '"objective": 0.25' '"active": [true, true]' \
    '"cos": [0.7071067811865'
gives "raw lengths" '{"gram": [[1, 0], [0, 4]], "normalize": false}' 0 '"alpha": [0.8, 0.2]' '"objective": 0.4'
gives "floor" '{"gram": [[1, 0], [0, 4]], "normalize": false, "floor": 0.25}' 0 '"alpha": [0.75, 0.25]' \
    '"active": [true, false]'
gives "linear" '{"gram": [[1, 0], [0, 1]], "linear": [0.5, 0]}' 0 '"alpha": [0.25, 0.75]' '"objective": 0.4375'
gives "priorities" '{"gram": [[1, 0], [0, 1]], "weights": [2, 1]}' 0 '"alpha": [0.8, 0.2]' \
    '"cos": [0.8944271909999'
gives "opposite" '{"gram": [[1, -2], [-2, 4]]}' 0 '"alpha": [0.5, 0.5]' '"cos": [0, 0]'
gives "zero gradient" '{"gram": [[0, 0], [0, 4]]}' 0 '"alpha": [0, 1]' 'gradient 0 is zero'
gives "floor, lengths 1e7 apart" '{"gram": [[10063676.71502197, -0.6130750533697619], [-0.6130750533697619, 1.0853539875536736e-07]],
    "weights": [2.1876073727705525, 1.8429050646999596], "floor": 0.20577322243989637, "normalize": false}' 0 '"alpha": [0.205773222439896, 0.7942267775'
gives "raw zero gradient" '{"gram": [[0, 0], [0, 4]], "normalize": false}' 0 '"alpha": [0, 1]' 'gradient 0 is zero' '"objective": 2'
gives "coefficients" '{"gram": [[1, 0], [0, 100]]}' 0 '"coefficient": [2.75, 0.275]' '"method": "marble"'
gives "rounded" '{"gram": [[1, 1, 1], [1, 1, 0.9999999], [1, 1, 1]]}' 0 '"alpha": ['
gives "broken JSON" '{"gram": [[1, 0],
 [0 1]]}' 2 'stdin:2:' 'not valid JSON'
gives "NaN" '{"gram": [[NaN]]}' 2 'not valid JSON' 'not finite'
gives "nothing" '' 2 'not valid JSON'
gives "a list" '[[1]]' 2 'holds no JSON object'
gives "no gram" '{"floor": 0}' 2 'gram is missing'
gives "empty" '{"gram": []}' 2 'gram is empty'
gives "not square" '{"gram": [[1, 0], [0]]}' 2 'row 1 has 1 numbers'
gives "not a number" '{"gram": [[1, 0], [null, 1]]}' 2 'gram[1][0] is null'
gives "asymmetric" '{"gram": [[1, 0.5], [0.4, 1]]}' 2 'not symmetric' '0.4'
gives "negative length" '{"gram": [[-1]]}' 2 'gram[0][0] is -1'
gives "too long a product" '{"gram": [[1, 3], [3, 4]]}' 2 'more than |g_1| |g_0| = 2'
gives "indefinite" '{"gram": [[1, -0.9, -0.9], [-0.9, 1, -0.9], [-0.9, -0.9, 1]]}' 2 'negative eigenvalue'
gives "floor too large" '{"gram": [[1, 0], [0, 1]], "floor": 0.6}' 2 'floor is 0.6' '0 to 0.5'
gives "weights too short" '{"gram": [[1, 0], [0, 1]], "weights": [1]}' 2 'weights has 1 numbers; expected 2'
gives "weight of zero" '{"gram": [[1, 0], [0, 1]], "weights": [1, 0]}' 2 'weights[1] is 0'
gives "typing error" '{"gram": [[1]], "flor": 0}' 2 'flor: unknown key; did you mean floor?'
gives "all zero" '{"gram": [[0]]}' 2 'every gradient is zero'
# a file as argument, and the example of the help
file=$(mktemp)
echo '{"gram": [[2]]}' >"$file"
"$marble" solve "$file" | grep -qF '"alpha": [1]' || { echo "FILE argument fails"; failures=1; }
"$marble" solve "$file.absent" 2>/dev/null
[ $? -eq 2 ] || { echo "a missing file must give exit code 2"; failures=1; }
example=$("$marble" solve --help | sed -n 's/.*\$ echo .\({.*}\).*/\1/p')
gives "the example of --help" "$example" 0 '"kkt_residual": '
rm -f "$file"
exit $failures
