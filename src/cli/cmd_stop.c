/* marble stop: asks the process that works in a run's folder to stop with a checkpoint. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "run/lock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

static const char about[] =
    "Asks the run that is at work in DIR to stop: it writes a checkpoint and ends with exit code 75, and\n"
    "marble train DIR/run.yaml --resume auto goes on from there. On the host where rank 0 runs this does "
    "it;\n"
    "elsewhere it says the command that does.\n"
    "    marble stop runs/run";

/* What does it from here. */
static mbl_status_t say_how(const char *folder, const mbl_holder_t *holder) {
    char name[MBL_HOLDER_TEXT];
    mbl_holder_name(holder, name);
    if (holder->job[0])
        return MBL_FAIL(MBL_ERR_USAGE, "stop: %s: %s works in it; expected: scancel --batch --signal=USR1 %s",
                        folder, name, holder->job);
    return MBL_FAIL(MBL_ERR_USAGE, "stop: %s: %s works in it; expected: ssh %s kill -TERM %lld", folder, name,
                    holder->host, holder->pid);
}

static mbl_status_t stop(const char *folder) {
    mbl_holder_t holder, self;
    char name[MBL_HOLDER_TEXT];
    const char *why;
    if (!mbl_lock_holder(folder, &holder))
        return MBL_FAIL(MBL_ERR_USAGE,
                        "stop: %s: nobody works in it (there is no lock in it that can be read)", folder);
    mbl_holder_self(&self);
    if (mbl_holder_state(&holder, &self, &why) == MBL_HOLDER_ENDED)
        return MBL_FAIL(MBL_ERR_USAGE, "stop: %s: nobody works in it; %s did: %s", folder,
                        mbl_holder_name(&holder, name), why);
    if (!mbl_holder_is_near(&holder, &self))
        return say_how(folder, &holder);
    if (kill((pid_t)holder.pid, SIGTERM) != 0)
        return MBL_FAIL(MBL_ERR_IO, "stop: %s: %s cannot be sent a signal: %s", folder,
                        mbl_holder_name(&holder, name), strerror(errno));
    printf("%s is asked to stop; it writes a checkpoint in %s first\n", mbl_holder_name(&holder, name),
           folder);
    return MBL_OK;
}

int mbl_cmd_stop(int argc, char **argv) {
    bool helped = false;
    mbl_arg_texts_t rest = {NULL, 0};
    const mbl_args_t spec = {"stop", "DIR", about, NULL, 0, 1, 1};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = stop(rest.items[0]);
    mbl_free(rest.items);
    return mbl_status_exit_code(status);
}
