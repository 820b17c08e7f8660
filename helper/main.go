// The helper gives a container of a cloud what Kubernetes gives it: files, order, restarts, probes,
// exact ends. docs/helper.md says what it does and what it guards. Standard library only.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
)

// Exit codes of the helper's own; a container's end has that container's.
const (
	exitUsage    = 120 // called in a way that it does not know
	exitPayload  = 121 // no payload, or one that is damaged or of no meaning
	exitHelper   = 122 // it could not do its own work: a path, a user, a volume
	exitNotBegun = 123 // the container was never started: the pod ended, or a peer never came
	exitStart    = 128 // StartError, as the kubelet has it
)

const usage = `usage: podbridge-helper install|watch|run|version [--payload FILE] [-- COMMAND...]

The payload is in PODBRIDGE_PAYLOAD_0, _1, ... or in FILE, a piece a line.
`

// failure is an error with the exit code that it ends the helper with.
type failure struct {
	code  int
	words string
}

func (f *failure) Error() string { return f.words }

func fail(code int, format string, words ...any) error {
	return &failure{code, fmt.Sprintf(format, words...)}
}

// codeOf is the helper's exit code for an error.
func codeOf(err error) int {
	var known *failure
	if errors.As(err, &known) {
		return known.code
	}
	return exitHelper
}

func main() {
	// It lives for days beside the pod's own work: memory counts more than time.
	debug.SetGCPercent(25)
	code, err := begin(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "podbridge-helper: %v\n", err)
		code = codeOf(err)
	}
	os.Exit(code)
}

func begin(args []string) (int, error) {
	call, err := parse(args)
	if err != nil {
		return 0, err
	}
	if call.verb == "version" {
		fmt.Printf("podbridge-helper, payloads of version %d\n", payloads)
		return 0, nil
	}
	if err := harden(); err != nil {
		return 0, fail(exitHelper, "cannot make itself unreadable: %v", err)
	}
	text, err := take(call)
	if err != nil {
		return 0, err
	}
	payload, err := parsePayload(text, call.verb)
	if err != nil {
		return 0, err
	}
	switch call.verb {
	case "install":
		return 0, install(payload)
	case "watch":
		stayLean()
		return watch(payload)
	default:
		stayLean()
		return run(payload, call.command)
	}
}

// call is what the command line says.
type call struct {
	verb    string
	file    string // where the payload is; empty: in the environment
	fd      string // where an earlier self left it
	command []string
}

func parse(args []string) (call, error) {
	var made call
	if len(args) == 0 {
		return made, fail(exitUsage, "%s", usage)
	}
	made.verb = args[0]
	switch made.verb {
	case "install", "watch", "run", "version":
	default:
		return made, fail(exitUsage, "unknown command %q\n%s", made.verb, usage)
	}
	for at := 1; at < len(args); at++ {
		switch {
		case args[at] == "--payload" && at+1 < len(args):
			at++
			made.file = args[at]
		case args[at] == heir && at+1 < len(args):
			at++
			made.fd = args[at]
		case args[at] == "--" && made.verb == "run":
			made.command = args[at+1:]
			return made, nil
		default:
			return made, fail(exitUsage, "unknown argument %q\n%s", args[at], usage)
		}
	}
	return made, nil
}
