package servergroup

import (
	"slices"

	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// regions reports for each region whether each of its groups has a replica that may be asked.
func (gen *generation) regions() map[string]bool {
	out := map[string]bool{}
	for _, g := range gen.groups() {
		if g.cfg.Region == "" {
			continue
		}
		before, seen := out[g.cfg.Region]
		out[g.cfg.Region] = (before || !seen) && g.available()
	}
	return out
}

// available reports whether a replica of the group may be asked.
func (g *group) available() bool {
	return slices.ContainsFunc(*g.replicas.Load(), func(r *replica.Replica) bool { return r.Health.Usable() })
}

// ForceBreaker keeps the circuit breaker of the replica at a URL in a state until it is called
// with health.Auto. It reports whether there is such a replica.
func (s *Set) ForceBreaker(group, url string, state health.State) bool {
	gen := s.current.Load()
	if gen == nil {
		return false
	}
	for _, g := range gen.groups() {
		for _, r := range *g.replicas.Load() {
			if g.cfg.Name == group && r.URL() == url {
				r.Health.Force(state)
				return true
			}
		}
	}
	return false
}
