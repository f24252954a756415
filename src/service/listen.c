/* The listening socket: TCP on a loopback address unless another one is asked for, or a unix socket that only
 * its owner may connect to. */
#include "service/server_internal.h"

#include "base/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 64 };
static mbl_status_t refused(const char *listen, const char *what) {
    return MBL_FAIL(MBL_ERR_IO, "service.listen: %s: %s: %s", listen, what, strerror(errno));
}

static mbl_status_t listen_now(const char *name, const listen_t *out) {
    return listen(out->fd, BACKLOG) == 0 ? MBL_OK : refused(name, "cannot be listened on");
}

/* One that is left from a process that is gone is removed; one that somebody answers at is not. */
static mbl_status_t listen_unix(const char *name, const char *path, listen_t *out) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat info;
    snprintf(out->path, sizeof out->path, "%s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    snprintf(out->address, sizeof out->address, "%s", name);
    out->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (out->fd < 0)
        return refused(name, "no socket");
    if (lstat(out->path, &info) == 0 && S_ISSOCK(info.st_mode)) {
        int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool answered = probe >= 0 && connect(probe, (struct sockaddr *)&address, sizeof address) == 0;
        if (probe >= 0)
            close(probe);
        if (!answered)
            unlink(out->path);
    }
    /* Linux makes the file with the socket's own mode; umask would be that of every thread */
    if (fchmod(out->fd, 0600) != 0 || bind(out->fd, (struct sockaddr *)&address, sizeof address) != 0) {
        out->path[0] = 0; /* somebody else's */
        return refused(name, "cannot be made");
    }
    return listen_now(name, out);
}

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static unsigned short port_of(const struct sockaddr_storage *address) {
    return ntohs(address->ss_family == AF_INET
                     ? ((const struct sockaddr_in *)(const void *)address)->sin_port
                     : ((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
}

static mbl_status_t listen_tcp(const char *name, const char *host, unsigned short port, listen_t *out) {
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    char number[8];
    int on = 1;
    snprintf(number, sizeof number, "%u", port);
    int error = getaddrinfo(host, number, &hints, &found);
    if (error)
        return MBL_FAIL(MBL_ERR_IO, "service.listen: %s: %s", name, gai_strerror(error));
    out->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool good = out->fd >= 0 && setsockopt(out->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                bind(out->fd, found->ai_addr, found->ai_addrlen) == 0;
    out->is_public = !is_loopback(found->ai_addr);
    int why = errno;
    freeaddrinfo(found);
    errno = why;
    if (!good || getsockname(out->fd, (struct sockaddr *)&bound, &size) != 0)
        return refused(name, "cannot be listened on");
    out->port = port_of(&bound);
    snprintf(out->host, sizeof out->host, "%s", host);
    bool v6 = strchr(host, ':') != NULL;
    snprintf(out->address, sizeof out->address, "http://%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "",
             out->port);
    return listen_now(name, out);
}

mbl_status_t mbl_listen_open(const char *listen, unsigned short port, listen_t *out) {
    static const char loopback[] = "127.0.0.1";
    mbl_address_t address;
    memset(out, 0, sizeof *out);
    out->fd = -1;
    if (!mbl_address_read(listen, &address) || address.kind == MBL_ADDRESS_OFF)
        return MBL_FAIL(
            MBL_ERR_USAGE,
            "service.listen: %s; expected auto, HOST:PORT such as 127.0.0.1:8080, or unix:PATH of "
            "at most 107 letters",
            listen);
    if (address.kind == MBL_ADDRESS_UNIX)
        return listen_unix(listen, address.path, out);
    const char *host = address.kind == MBL_ADDRESS_TCP ? address.host : loopback;
    if (address.port == 0 && port > 0) { /* where pages that are open look for the run */
        mbl_fail_quiet(1);
        mbl_status_t status = listen_tcp(listen, host, port, out);
        mbl_fail_quiet(0);
        if (status == MBL_OK)
            return MBL_OK;
        mbl_listen_close(out);
    }
    return listen_tcp(listen, host, address.port, out);
}

void mbl_listen_close(listen_t *listening) {
    if (listening->fd >= 0)
        close(listening->fd);
    if (listening->path[0])
        unlink(listening->path);
    memset(listening, 0, sizeof *listening);
    listening->fd = -1;
}
