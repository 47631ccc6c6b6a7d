package contract

// Exit codes of the agent if they are not the command's own. 126, 127 and 128+n follow the shell (POSIX.1-2024, Shell Command
// Language, 2.8.2); container tools use 125 for their own failures.
const (
	ExitTimeout       = 124 // the command exceeded its timeout, as timeout(1) reports it
	ExitAgentFailure  = 125 // the agent itself failed
	ExitNotExecutable = 126 // the command was found and can't be executed
	ExitNotFound      = 127 // the command was not found
	ExitSignal        = 128 // plus the number of the signal that ended the command
)
