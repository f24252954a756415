/* proto/http over TLS: certificates made here by openssl, good ones and every kind of bad one, on both
 * sides. The server is `openssl s_server`. */
#include "support.h"

#include "base/log.h"
#include "proto/http.h"

#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ca.pem signs good.pem, expired.pem, other.pem (for another host) and client.pem; stranger.pem signs
 * itself. */
static const char make[] =
    "set -e; cd \"$1\"; exec 2>log >&2\n"
    "new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key -out $1.csr "
    "-subj /CN=$1; }\n"
    "sign() { printf \"subjectAltName=$3\" > $1.ext; new $1; openssl x509 -req -in $1.csr -CA ca.pem -CAkey "
    "ca.key -CAcreateserial -days $2 -extfile $1.ext -out $1.pem; }\n"
    "for name in ca stranger; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
    "-keyout $name.key -out $name.pem -subj /CN=$name -days 2 -addext subjectAltName=IP:127.0.0.1; done\n"
    "sign good 2 IP:127.0.0.1; sign expired -1 IP:127.0.0.1; sign other 2 DNS:elsewhere.example\n"
    "sign client 2 DNS:client\n";

static char folder[256];

static char *in_folder(const char *name, char out[400]) {
    snprintf(out, 400, "%s/%s", folder, name);
    return out;
}

static int make_certificates(void **state) {
    (void)state;
    int status;
    temporary_folder(folder);
    pid_t child = fork();
    if (child == 0) {
        execlp("sh", "sh", "-c", make, "sh", folder, (char *)NULL);
        _exit(127);
    }
    waitpid(child, &status, 0);
    if (status != 0)
        print_error("openssl made no certificates: see %s/log\n", folder);
    return status;
}

static int remove_certificates(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* A server with a certificate, which answers every GET with a page; `client`: it wants a certificate too. */
static pid_t start_server(const char *name, bool client, char url[64]) {
    char certificate[400], key[400], ca[400], line[256] = "", pem[64];
    int out[2], port = 0;
    snprintf(pem, sizeof pem, "%s.pem", name);
    in_folder(pem, certificate);
    snprintf(pem, sizeof pem, "%s.key", name);
    in_folder(pem, key);
    in_folder("ca.pem", ca);
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 1);
        freopen("/dev/null", "w", stderr);
        close(out[0]);
        execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", certificate, "-key", key,
               "-www", client ? "-Verify" : "-no_ticket", client ? "1" : "-no_comp",
               client ? "-CAfile" : NULL, ca, "-verify_return_error", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *said = fdopen(out[0], "r");
    while (port == 0 && fgets(line, sizeof line, said))
        sscanf(line, "ACCEPT 127.0.0.1:%d", &port);
    assert_true(port > 0);
    fclose(said);
    snprintf(url, 64, "https://127.0.0.1:%d", port);
    return child;
}

static void stop_server(pid_t child) {
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    mbl_http_call_t *call;
} waiter_t;

static void note_end(void *user, mbl_http_call_t *call) {
    waiter_t *waiter = user;
    pthread_mutex_lock(&waiter->lock);
    waiter->call = call;
    pthread_cond_signal(&waiter->cond);
    pthread_mutex_unlock(&waiter->lock);
}

static bool lasts; /* the last call's end */

/* How a GET ends; the text of a failure goes to `text`. */
static mbl_http_end_t call_within(double deadline, const mbl_http_server_t *server, char text[400]) {
    waiter_t waiter = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    mbl_proto_request_t request = {.method = "GET", .path = "/"};
    mbl_http_t *http;
    assert_int_equal(mbl_http_open(1, &http), MBL_OK);
    assert_int_equal(mbl_http_submit(http, server, &request, deadline, note_end, &waiter, NULL), MBL_OK);
    pthread_mutex_lock(&waiter.lock);
    while (!waiter.call)
        pthread_cond_wait(&waiter.cond, &waiter.lock);
    pthread_mutex_unlock(&waiter.lock);
    mbl_http_end_t end = mbl_http_end(waiter.call);
    snprintf(text, 400, "%s", mbl_http_text(waiter.call));
    lasts = mbl_http_lasts(waiter.call);
    mbl_http_close(http);
    return end;
}

static mbl_http_end_t call_server(const mbl_http_server_t *server, char text[400]) {
    return call_within(20, server, text);
}

static void test_only_a_good_certificate_will_do(void **state) {
    (void)state;
    char ca[400], text[400], url[64];
    const struct {
        const char *name;
        bool trusts; /* the client trusts our CA */
        mbl_http_end_t end;
        const char *says;
    } cases[] = {{"good", true, MBL_HTTP_ANSWERED, ""},
                 {"good", false, MBL_HTTP_TLS, "certificate"},
                 {"expired", true, MBL_HTTP_TLS, "expired"},
                 {"other", true, MBL_HTTP_TLS, "127.0.0.1"},
                 {"stranger", true, MBL_HTTP_TLS, "certificate"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pid_t child = start_server(cases[i].name, false, url);
        mbl_http_server_t server = {.url = url, .ca = cases[i].trusts ? in_folder("ca.pem", ca) : NULL};
        mbl_http_end_t end = call_server(&server, text);
        stop_server(child);
        assert_int_equal(lasts, cases[i].end == MBL_HTTP_TLS);
        if (end != cases[i].end || !strstr(text, cases[i].says))
            fail_msg("%s: %s (%s), expected %s with '%s'", cases[i].name, mbl_http_end_name(end), text,
                     mbl_http_end_name(cases[i].end), cases[i].says);
    }
}

static void test_a_server_may_want_our_certificate(void **state) {
    (void)state;
    char ca[400], own[400], key[400], text[400], url[64];
    in_folder("ca.pem", ca);
    const struct {
        const char *certificate, *key;
        bool answered;
    } cases[] = {{"client.pem", "client.key", true},
                 {NULL, NULL, false},
                 {"stranger.pem", "stranger.key", false},
                 {"absent.pem", "client.key", false}};
    pid_t child = start_server("good", true, url);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_http_server_t server = {.url = url, .ca = ca};
        if (cases[i].certificate) {
            server.cert = in_folder(cases[i].certificate, own);
            server.key = in_folder(cases[i].key, key);
        }
        mbl_http_end_t end = call_server(&server, text);
        /* with TLS 1.3 the server refuses after the client's side of the handshake is through */
        bool right =
            cases[i].answered ? end == MBL_HTTP_ANSWERED : end == MBL_HTTP_TLS || end == MBL_HTTP_CUT;
        if (!right)
            fail_msg("%s: %s (%s)", cases[i].certificate ? cases[i].certificate : "none",
                     mbl_http_end_name(end), text);
    }
    stop_server(child);
}

static void test_no_tls_where_it_is_expected(void **state) {
    (void)state;
    char ca[400], text[400], url[64], plain[64];
    pid_t child = start_server("good", false, url);
    snprintf(plain, sizeof plain, "http%s", url + 5);
    mbl_http_end_t end = call_server(&(mbl_http_server_t){.url = plain}, text);
    if (end == MBL_HTTP_ANSWERED)
        fail_msg("plain HTTP to a TLS port was answered");
    end = call_server(&(mbl_http_server_t){.url = url, .ca = in_folder("absent.pem", ca)}, text);
    assert_int_equal(end, MBL_HTTP_TLS);
    stop_server(child);
}

/* A server that speaks http: it takes one connection and answers what it gets, or says nothing. */
static void *serve_plainly(void *user) {
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    int *sockets = user; /* listening; whether it answers */
    char bytes[4096];
    int socket = accept(sockets[0], NULL, NULL);
    if (read(socket, bytes, sizeof bytes) > 0 && sockets[1])
        (void)!write(socket, answer, strlen(answer));
    while (read(socket, bytes, sizeof bytes) > 0) /* until the client has had enough */
        ;
    close(socket);
    return NULL;
}

static void test_https_to_a_server_that_speaks_http(void **state) {
    (void)state;
    for (int answers = 0; answers < 2; answers++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t size = sizeof address;
        int sockets[2] = {socket(AF_INET, SOCK_STREAM, 0), answers};
        char text[400], url[64];
        pthread_t thread;
        assert_int_equal(bind(sockets[0], (struct sockaddr *)&address, size), 0);
        assert_int_equal(listen(sockets[0], 4), 0);
        assert_int_equal(getsockname(sockets[0], (struct sockaddr *)&address, &size), 0);
        assert_int_equal(pthread_create(&thread, NULL, serve_plainly, sockets), 0);
        snprintf(url, sizeof url, "https://127.0.0.1:%d", ntohs(address.sin_port));
        mbl_http_end_t end = call_within(answers ? 20 : 1, &(mbl_http_server_t){.url = url}, text);
        assert_true(answers ? end == MBL_HTTP_TLS : end == MBL_HTTP_DEADLINE || end == MBL_HTTP_CONNECT);
        assert_int_equal(lasts, answers);
        if (!strstr(text,
                    answers ? "the server speaks http, not https; expected http:// in its url"
                            : "no TLS came from it; if the server speaks http, expected http:// in its url"))
            fail_msg("%s", text);
        assert_int_equal(pthread_join(thread, NULL), 0);
        close(sockets[0]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_https_to_a_server_that_speaks_http),
        cmocka_unit_test(test_only_a_good_certificate_will_do),
        cmocka_unit_test(test_a_server_may_want_our_certificate),
        cmocka_unit_test(test_no_tls_where_it_is_expected),
    };
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
