package ruler

import (
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/prometheus/promql/parser"
)

// errRules is that of files of rules whose problems have been printed.
var errRules = errors.New("there are files of rules that cannot be used")

// CheckFiles prints what is wrong with files of rules, as promtool does, and returns an
// error if anything is.
func CheckFiles(w io.Writer, p parser.Parser, names []string) error {
	var failed error
	for _, name := range names {
		fmt.Fprintln(w, "Checking", name)
		groups, problems := parse(name, p)
		if len(problems) > 0 {
			failed = errRules
			fmt.Fprintln(w, "  FAILED:")
			for _, problem := range problems {
				fmt.Fprintln(w, problem)
			}
			fmt.Fprintln(w)
			continue
		}
		found := 0
		for _, g := range groups.Groups {
			found += len(g.Rules)
		}
		fmt.Fprintf(w, "  SUCCESS: %d rules found\n\n", found)
	}
	return failed
}
