#!/bin/sh
# The include order of the layers holds, and lint_layers sees it when it does not.
here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d) || exit 1
trap 'rm -rf "$tree"' EXIT
failed=0

# plant FILE LINE EXPECTED: a tree with one include; EXPECTED is part of the complaint, or empty for none.
plant() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree/src/model" "$tree/$(dirname "$1")"
    printf '#define MBL_DIT_LIST(X) X(mmdit) X(other)\n' >"$tree/src/model/dit_list.h"
    printf '/* planted */\n%s\n' "$2" >"$tree/$1"
    said=$("$here/lint_layers" "$tree")
    code=$?
    if [ -z "$3" ] && [ "$code" -ne 0 ]; then
        echo "$1 with $2: refused with \"$said\", expected to pass"
        failed=1
    elif [ -n "$3" ] && { [ "$code" -ne 1 ] || ! echo "$said" | grep -qF "$3"; }; then
        echo "$1 with $2: exit $code, \"$said\"; expected exit 1 and \"$3\""
        failed=1
    fi
}
plant src/base/a.c '#include "base/mem.h"' ''
plant src/cli/a.c '#include "config/config.h"' ''
plant src/reward/a.c '#include "data/signs/signs.h"' ''
plant src/config/a.c '#include "run/rundir.h"' 'config includes "run/rundir.h" of run'
plant src/train/a.c '#include "eval/compare.h"' 'train includes "eval/compare.h" of eval'
plant src/ops/cpu/a.c '#include "ops/ops.h"' ''
plant src/report/a.c '#include "run/rundir.h"' ''
plant src/train/a.c '#include "report/report.h"' ''
plant src/run/a.c '#include "report/report.h"' 'run includes "report/report.h" of report'
plant src/report/a.c '#include "train/report.h"' 'report includes "train/report.h" of train'
plant src/base/a.c '#include <config/config.h>' ''
plant src/base/a.c '#include "ops/ops.h"' 'src/base/a.c:2: base includes "ops/ops.h" of ops'
plant src/rl/a.h '#  include "config/config.h"' 'src/rl/a.h:2: rl includes'
plant src/data/a.c '#include "reward/reward.h"' 'data includes "reward/reward.h" of reward'
plant comm/a.c '#include "ops/cpu/rows.h"' 'comm/a.c:2: comm includes "ops/cpu/rows.h" of ops/cpu'
plant src/ops/a.c '#include "ops/cpu/rows.h"' 'ops includes "ops/cpu/rows.h" of ops/cpu'
plant src/base/a.c '#include "mem.h"' 'names no layer'
plant src/rl/a.c '#include "model/dit.h"' ''
plant src/model/mmdit/a.c '#include "model/mmdit/internal.h"' ''
plant src/rl/a.c '#include "model/mmdit/mmdit.h"' 'src/rl/a.c:2: rl includes model/mmdit, of a family'
plant src/cli/bench/a.c '#include "model/other/x.h"' 'cli includes model/other, of a family'
plant src/export/a.c '#include "model/dit_family.h"' 'export includes model/dit_family.h, of a family'
plant src/ops/cpu/a.c '#include <oneapi/dnnl/dnnl.h>' ''
plant gpu/emulation/a.c '#include <oneapi/dnnl/dnnl.h>' ''
plant src/cli/a.c '#include <oneapi/dnnl/dnnl_debug.h>' 'src/cli/a.c:2: cli includes oneDNN'
plant src/elsewhere/a.c '#include "base/mem.h"' 'lies in no layer'

"$here/lint_layers" "$here/.." || failed=1
exit $failed
