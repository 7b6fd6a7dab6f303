/*
 * The processes' mains. The way of a machine, from `umbra run` to its guest's first instruction and
 * back to the exit code:
 *
 *   verb_run()     understands what the user wants: a plan, and descriptors of what it needs; goes
 *                  on as the broker: the same process, anew and empty, but of a machine that goes
 *                  on from a file (cli/run.c)
 *   broker_main()  starts the other processes, gives up its rights, serves, says how it ended
 *                  (broker_main.c)
 *   machine_main() makes the machine and its threads, gives up its rights, lets the guest run, says
 *                  how it ended (machine_main.c)
 *   machine_start_threads(), machine_go(), machine_wait()
 *                  the same from inside (vm/lifecycle.c)
 *   vcpu_thread()  the guest, on a thread for each processor (vm/vcpu.c)
 */
#pragma once

struct plan;

/* Of a process that was started with --role=NAME: its exit code. */
int process_main(const char *name);

/* Each: the exit code of its process. */
int broker_main(void);
/*
 * Of a process that has its descriptors at their numbers, and its plan in memory: forked for a
 * machine that runs already (cli/fork_child.c), or umbra run itself, of one that goes on from a
 * file, which nobody shall wait for.
 */
int broker_main_here(const struct plan *plan);
int machine_main(void);
int disk_main(void);
int keeper_main(void);
int supervisor_main(void);
int net_main(void);
int line_main(void);
int balancer_main(void);
int pager_main(void);
int folder_main(void);
int switch_main(void);
int relay_main(void);
int joiner_main(void);
int hub_main(void);
