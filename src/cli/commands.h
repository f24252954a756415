/* The commands of the program. A new one is a file cmd_NAME.c that defines mbl_cmd_NAME and a line here; the
 * lines are in the order of `marble --help`. */
#ifndef MBL_CLI_COMMANDS_H
#define MBL_CLI_COMMANDS_H

/* name, one line for the list of commands */
#define MBL_COMMANDS(X)                                                                                      \
    X(inspect, "what is in a checkpoint or a model, digests verified")                                       \
    X(train, "fine-tune a model on several rewards at once")                                                 \
    X(pretrain, "train a small base model of the signs world")                                               \
    X(sample, "pictures for prompts")                                                                        \
    X(eval, "every reward on the held-out prompts")                                                          \
    X(export, "an adapter for diffusers or PEFT, or a merged model, from a checkpoint")                      \
    X(solve, "the QP alone: weights, certificate, cosines from a Gram matrix")                               \
    X(plan, "memory and time of a run on a GPU, before one is paid for")                                     \
    X(bench, "times products, attention and more on this machine")                                           \
    X(doctor, "what was built in, what is missing, and how to get it")

/* argv[0] is the command's name; returns the exit code (0 done, 1 failed, 2 bad usage or configuration, 71
 * the device failed, 75 stopped and resumable: mbl_status_exit_code). */
#define MBL_COMMAND_DECLARE(name, summary) int mbl_cmd_##name(int argc, char **argv);
MBL_COMMANDS(MBL_COMMAND_DECLARE)
#undef MBL_COMMAND_DECLARE

#endif
