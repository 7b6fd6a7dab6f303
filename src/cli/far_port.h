/* What both kinds of `umbra far` that join the hub here have in common. */
#pragma once

/* A line to the hub that listens there, which is started where there is none; -errno. */
int far_port_reach_hub(const char *hub);
/* The user's rules, for the hub. */
void far_port_bring_rules(int line);
/*
 * A pipe that ends some time after this process has, so that who is started in its place finds its
 * place at the hub (share/hub_hold.c); before there are threads. The end that is read; -errno.
 */
int far_port_keep_place(void);
/* The hub is told of it. */
void far_port_hold(int line, int end);
