#!/bin/sh
# Every source is formatted as .clang-format says.
cd "$(dirname "$0")/.." || exit 1
if ! command -v clang-format >/dev/null; then
    echo "skipped: clang-format is not installed; deploy/install-packages brings it"
    exit 77
fi
folders=
for folder in src gpu comm proto tests; do
    [ -d "$folder" ] && folders="$folders $folder"
done
# shellcheck disable=SC2086
if find $folders -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.js' \) -print0 |
    xargs -0 clang-format --dry-run -Werror; then
    exit 0
fi
echo "to correct: clang-format -i FILE"
exit 1
