package explain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Digest returns 16 hexadecimal digits that identify a plan. They are the same for the same
// query at another time, unless other groups are concerned by then.
func Digest(p *plan.Routed) string {
	sum := sha256.New()
	writeShape(sum, p)
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// writeShape writes what is planned without times, which differ each time that a dashboard
// asks.
func writeShape(w io.Writer, p *plan.Routed) {
	if len(p.Stretches) > 0 {
		for _, stretch := range p.Stretches {
			writeShape(w, stretch)
		}
		return
	}
	names := make([]string, len(p.Leaves)) // "" if not a part
	for i, leaf := range p.Leaves {
		if part := leaf.Part; part != nil {
			names[i] = "$"
			fmt.Fprintf(w, "part %s\n%s, carries %q, by target %t, by name %t\n", part.ShownText(), part.Why, part.Carries, part.ByTarget, part.ByName)
			continue
		}
		s := leaf.Selector
		fmt.Fprintf(w, "select %s, not evaluated %t, every sample %t\n", transport.Selector(s.Matchers), s.Unused, s.Steps == nil || s.Every)
		for _, r := range p.View.Routes(s.Selection) {
			if r.Skipped == "" {
				fmt.Fprintf(w, "of %q\n", r.Group)
			}
		}
	}
	for _, partition := range p.Partitions {
		fmt.Fprintf(w, "partition %q\n", partition.Labels())
		for _, m := range partition.Members() {
			fmt.Fprintf(w, "of %q\n", m.Name)
		}
	}
	fmt.Fprintf(w, "evaluate %s\n", p.Expression(names))
}
