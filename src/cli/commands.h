/* The commands of the program. A new one is a file cmd_NAME.c that defines mbl_cmd_NAME and a line here; the
 * lines are in the order of `marble --help`. */
#ifndef MBL_CLI_COMMANDS_H
#define MBL_CLI_COMMANDS_H

/* name, one line for the list of commands, and whether standard output is its answer: then one that could not
 * be written is a failure. A run's answer is its folder: it goes on without a terminal. */
#define MBL_COMMANDS(X)                                                                                      \
    X(inspect, "what is in a checkpoint, a run's folder or a model", true)                                   \
    X(init, "write a run.yaml to begin with", true)                                                          \
    X(train, "fine-tune a model on several rewards at once", false)                                          \
    X(encode, "the prompts of a run through its text encoders, ahead of it", true)                           \
    X(pretrain, "train a small base model for the signs example", false)                                     \
    X(runs, "the runs in folders: state, step, rewards", true)                                               \
    X(report, "what became of a run, as one page of HTML and PNG charts", true)                              \
    X(dash, "the page of runs in a browser: rewards, balance, images, speed, side by side", true)            \
    X(ctl, "ask a run at work: where it is, checkpoint, pause, learning rate, ...", true)                    \
    X(stop, "ask the run that is at work in a folder to stop with a checkpoint", true)                       \
    X(sample, "images for prompts", true)                                                                    \
    X(eval, "every reward on the held-out prompts", true)                                                    \
    X(reward, "check: asks every reward of a run for scores, before the run does", true)                     \
    X(export, "an adapter for diffusers or PEFT, or a merged model, from a checkpoint", true)                \
    X(solve, "the quadratic program alone: weights, certificate, cosines from a Gram matrix", true)          \
    X(plan, "memory and time of a run on a GPU, before one is paid for", true)                               \
    X(bench, "times products, attention and more on this machine", true)                                     \
    X(doctor, "what was built in, what is missing, and how to get it", true)

/* argv[0] is the command's name; returns the exit code (0 done, 1 failed, 2 bad usage or configuration, 71
 * the device failed, 75 stopped and resumable: mbl_status_exit_code). */
#define MBL_COMMAND_DECLARE(name, summary, answers) int mbl_cmd_##name(int argc, char **argv);
MBL_COMMANDS(MBL_COMMAND_DECLARE)
#undef MBL_COMMAND_DECLARE

#endif
