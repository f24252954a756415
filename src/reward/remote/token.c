/* The token of a reward's servers, which never reaches a log. */
#include "reward/remote/client_internal.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TOKEN_MAX = 16 << 10 };

/* The token: one line of printable characters, so that it makes one header. */
mbl_status_t mbl_remote_token_read(const char *reward, const char *file, const char *variable, char **out) {
    const char *from = file ? file : variable;
    char *text = NULL;
    if (!from)
        return MBL_OK;
    if (file)
        MBL_TRY(mbl_file_read(file, TOKEN_MAX, &text, NULL));
    else if (getenv(variable))
        MBL_TRY(mbl_remote_copy(getenv(variable), &text));
    else
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "reward %s: token_env: the environment has no %s; expected the token in it", reward,
                        variable);
    size_t end = strlen(text), start = strspn(text, " \t\r\n");
    while (end > start && isspace((unsigned char)text[end - 1]))
        text[--end] = 0;
    memmove(text, text + start, end - start + 1);
    bool good = text[0] != 0;
    for (const char *c = text; *c; c++)
        good &= *c > ' ' && *c < 127;
    if (!good) {
        explicit_bzero(text, strlen(text));
        mbl_free(text);
        return MBL_FAIL(MBL_ERR_CONFIG, "reward %s: %s holds no token; expected one line of letters", reward,
                        from);
    }
    *out = text;
    return MBL_OK;
}

void mbl_remote_token_check(const char *reward, const char *file) {
    struct stat about;
    if (file && mbl_log_rank() == 0 && stat(file, &about) == 0 && (about.st_mode & 077))
        MBL_WARN("reward %s: token_file %s: other users can read it; expected it to be its owner's alone "
                 "(chmod 600)",
                 reward, file);
}

void mbl_remote_token_free(char *token) {
    if (token)
        explicit_bzero(token, strlen(token));
    mbl_free(token);
}

bool mbl_remote_token_renew(mbl_remote_t *remote, size_t sent) {
    char *token = NULL;
    if (sent != remote->n_tokens)
        return true;
    if (!remote->token_file ||
        mbl_remote_token_read(remote->name, remote->token_file, NULL, &token) != MBL_OK)
        return false;
    bool renewed = strcmp(token, remote->token) != 0;
    if (renewed) {
        mbl_remote_token_free(remote->token);
        remote->token = token;
        remote->n_tokens++;
        for (size_t r = 0; r < remote->n_replicas; r++)
            remote->replicas[r].server.token = token;
    } else {
        mbl_remote_token_free(token);
    }
    return renewed;
}
