package servergroup

import "github.com/oneprom/oneprom/servergroup/health"

// regions tells of each region whether each of its groups has a replica that may be
// asked. A region's breaker is no more than that: it is open if those of the replicas
// of one of its groups are.
func (gen *generation) regions() map[string]bool {
	out := map[string]bool{}
	for _, g := range gen.groups() {
		if g.cfg.Region == "" {
			continue
		}
		before, known := out[g.cfg.Region]
		out[g.cfg.Region] = (before || !known) && g.available()
	}
	return out
}

// available reports whether a replica of the group may be asked.
func (g *group) available() bool {
	for _, r := range *g.replicas.Load() {
		if r.Health.Usable() {
			return true
		}
	}
	return false
}

// ForceBreaker holds the circuit breaker of a replica, named by its URL, in a state until
// it is called with health.Auto. It reports whether there is such a replica.
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
