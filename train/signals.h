// signals.h: a run that is told to stop finishes its step, saves, and leaves with Exit::interrupted.
#pragma once

// From here on SIGTERM, SIGINT and SIGUSR1 only ask to stop; a second SIGINT ends the process at once. SIGPIPE and
// SIGXFSZ are ignored, so that a closed terminal and a full quota are errors of write(), not sudden death.
void watch_signals();

// The signal that asked to stop, 0 while none has. SIGUSR1 is the scheduler's "save, you will be queued again".
int stop_signal();
