/*
 * Machines by name: a socket for each in a folder that is the user's alone, $XDG_RUNTIME_DIR/umbra,
 * or /tmp/umbra-UID where that is not set. What is asked there is in src/control/machine_control.h.
 * A machine that ends cannot remove its socket, having no rights to; who finds one that nobody
 * listens on does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { NAME_MAX_BYTES = 64 };

/* Letters, digits, '.', '_' and '-', the first a letter or digit. */
bool name_is_valid(const char *name);
/*
 * A socket that listens. -errno: -EADDRINUSE: a machine of that name runs; -EPERM: the folder is
 * not the user's own.
 */
int name_listen(const char *name);
/* Where a switch of this name listens, in the same folder. 0; -EINVAL: not a name; -errno. */
int name_switch_path(const char *name, char *path, size_t bytes);
/*
 * The socket at which programs of the host connect to those of the machine of this name, in a
 * folder within that one which holds nothing else but who listens for this machine's guest: the
 * guest can name all of them. 0 or -errno.
 */
int name_socket_path(const char *name, char *path, size_t bytes);
/* Where what a detached machine prints, and what it says itself, is; the same. */
int name_console_path(const char *name, char *path, size_t bytes);
int name_log_path(const char *name, char *path, size_t bytes);
/* Where the seed of its cloud-init is; the same. */
int name_seed_path(const char *name, char *path, size_t bytes);
/* Where is kept what its children elsewhere asked for (cli/fork_wanted.h); the same. */
int name_wanted_path(const char *name, char *path, size_t bytes);
/*
 * The same, by who has the name: the folder is there, and nothing of a machine that is gone at the
 * place. -EPERM: the folder is not the user's own.
 */
int name_make_socket_place(const char *name, char *path, size_t bytes);
/* The same place leads to a socket elsewhere. 0 or -errno. */
int name_link_socket(const char *name, const char *path);
/* PATH_PORT: a guest whose socket is at PATH could connect there. */
bool name_is_port_of_another(const char *path);
/*
 * A socket that listens there; one at which nobody does any more is replaced. -EADDRINUSE;
 * -EEXIST: there is something that is no socket; -errno.
 */
int name_listen_at(const char *path);
/* A connection to who listens there; -ECONNREFUSED: nobody, any more; -ENOENT; -errno. */
int name_connect_at(const char *path);
/* Where the hub listens, in the same folder. 0 or -errno. */
int name_hub_path(char *path, size_t bytes);
/*
 * Where the user's balancer listens, in the same folder. The folder, open, to be locked while it is
 * started; -errno.
 */
int name_balancer_path(char *path, size_t bytes);
/* A connection; -ENOENT: no such machine. */
int name_connect(const char *name);
/*
 * The same for who must not wait: the socket does not block. -EAGAIN: too many wait there already.
 */
int name_connect_now(const char *name);
/*
 * Where the user's daemon listens, in the same folder. The folder, open, to be locked while it
 * begins to listen; -errno.
 */
int name_daemon_path(char *path, size_t bytes);
/* The folder itself. 0 or -errno. */
int name_folder(char *path, size_t bytes);
/* Calls for every name that has a socket, in order. 0 or -errno. */
int name_list(void (*found)(void *context, const char *name), void *context);
