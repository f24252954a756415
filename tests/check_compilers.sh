#!/bin/sh
# The other compiler takes every source without a warning, with the build folder's own flags: clang where the folder is
# gcc's, gcc where it is clang's. The CPU's loops, which depend on compiler and processor, are compiled, also without
# -march=native; of the rest it checks the syntax.
cd "$(dirname "$0")/.." || exit 1
commands=$(dirname "$1")/compile_commands.json
if [ ! -f "$commands" ]; then
    echo "skipped: no $commands"
    exit 77
fi
from=$(sed -n 's/^ *"command": "\([^ ]*ccache \)\{0,1\}\([^ ]*\) .*/\2/p' "$commands" | head -1)
case $("$from" --version 2>/dev/null) in
*clang*) other=gcc openmp=-fopenmp ;;
*) other=clang openmp=-fopenmp=libomp ;;
esac
launcher=$(command -v ccache)
if ! echo '#include <omp.h>' | $other $openmp -fsyntax-only -x c - 2>/dev/null; then
    echo "skipped: $other with OpenMP is not here; deploy/install-packages --check brings it"
    exit 77
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# One line for each C source: the command without its compiler and output, with the other compiler's way to OpenMP.
sed -n 's/^ *"command": "\([^ ]*ccache \)\{0,1\}[^ ]* \(.*\)",$/\2/p' "$commands" | grep -E '\.c$' |
    sed -e 's/\\\\\\"/\\"/g' -e 's/\\"\([^\\]*\)\\"/"\\"\1\\""/g' -e 's/ -o [^ ]*//' -e "s/ -fopenmp[^ ]*/ $openmp/" \
        -e 's/ -fsanitize=[^ ]*//g' -e 's/ -Wno-pass-failed//; s/ -Wno-enum-float-conversion//' \
        -e 's/ -Wno-maybe-uninitialized//' >"$work/all"
[ "$other" = gcc ] || sed -i 's/^/-Wno-pass-failed -Wno-enum-float-conversion /' "$work/all" # as CMakeLists.txt has it
grep 'src/ops/cpu/' "$work/all" >"$work/loops"
{
    cat "$work/loops"
    grep -e '-march=native' "$work/loops" | sed 's/ -march=native//'
    grep -v 'src/ops/cpu/' "$work/all" | sed 's/ -c / -fsyntax-only /'
} >"$work/lines"
if [ ! -s "$work/loops" ]; then
    echo "$commands: no command of a source in src/ops/cpu, expected one for each"
    exit 1
fi

cat >"$work/one" <<END
#!/bin/sh
eval "set -- \$1"
case \$* in
*-fsyntax-only*) exec $other -Werror "\$@" ;;
*) exec $launcher $other -Werror -o "$work/\$\$.o" "\$@" ;;
esac
END
chmod +x "$work/one"

# A warning is seen: this line has one.
printf 'int main(void) { int unused = 0; }\n' >"$work/warns.c"
if "$work/one" "-Wall -c $work/warns.c" 2>/dev/null; then
    echo "$other -Wall -Werror took a variable nobody reads, expected it to fail"
    exit 1
fi
tr '\n' '\0' <"$work/lines" | xargs -0 -n 1 -P 2 "$work/one" || {
    echo "$other: the warnings above, expected none"
    exit 1
}
echo "$other takes $(wc -l <"$work/all") sources without a warning"
