/* What both kinds of `umbra far` that join the hub here have in common. */
#pragma once

/* A line to the hub that listens there, which is started where there is none; -errno. */
int far_port_reach_hub(const char *hub);
/* The user's rules, for the hub. */
void far_port_bring_rules(int line);
