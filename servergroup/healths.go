package servergroup

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/lifetime"
)

// healths are the health of all replicas, by group and URL: what is known of a replica
// outlives a reload of the configuration. Regions have slots of their own.
type healths struct {
	opts    Options
	life    *lifetime.Lifetime
	metrics *metrics
	extra   health.Extra // budget of hedges and retries

	mtx     sync.Mutex // guards the maps
	known   map[healthKey]*health.Replica
	regions map[string]*health.Slots
}

type healthKey struct{ group, region, url string }

func newHealths(o Options, life *lifetime.Lifetime, m *metrics) *healths {
	return &healths{opts: o, life: life, metrics: m, known: map[healthKey]*health.Replica{}, regions: map[string]*health.Slots{}}
}

// of gives a replica its health, which the replicas before it with the same URL had.
func (h *healths) of(r *replica) {
	h.mtx.Lock()
	defer h.mtx.Unlock()
	key := keyOfHealth(r)
	known, ok := h.known[key]
	if !ok {
		known = health.NewReplica(health.Options{
			URL: r.url(), Concurrency: r.group.MaxConcurrency, Judge: judge, Run: h.life.Run, Logger: r.logger,
			Changed: func(to health.State) {
				h.metrics.transitions.WithLabelValues(string(to), key.group, key.region, key.url).Inc()
			},
		})
		h.known[key] = known
	}
	known.SetProbe(r.alive)
	r.health, r.metrics = known, h.metrics
	if region := r.group.Region; region != "" {
		if h.regions[region] == nil {
			h.regions[region] = health.NewSlots(h.opts.RegionConcurrency)
		}
		r.region = h.regions[region]
	}
}

func keyOfHealth(r *replica) healthKey {
	return healthKey{r.group.Name, r.group.Region, r.url()}
}

// keep forgets the health of replicas that are not there any more.
func (h *healths) keep(gen *generation) {
	there, regions := map[healthKey]bool{}, map[string]bool{}
	for _, g := range gen.groups() {
		regions[g.cfg.Region] = true
		for _, r := range *g.replicas.Load() {
			there[keyOfHealth(r)] = true
		}
	}
	h.mtx.Lock()
	defer h.mtx.Unlock()
	for key, known := range h.known {
		if !there[key] {
			known.Close()
			delete(h.known, key)
			h.metrics.forget(prometheus.Labels{"group": key.group, "region": key.region, "replica": key.url})
		}
	}
	for region := range h.regions {
		if !regions[region] {
			delete(h.regions, region)
		}
	}
}

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

// available tells whether a replica of the group may be asked.
func (g *group) available() bool {
	for _, r := range *g.replicas.Load() {
		if r.health.Usable() {
			return true
		}
	}
	return false
}

// ForceBreaker holds the circuit breaker of a replica, named by its URL, in a state until
// it is called with health.Auto. It tells whether there is such a replica.
func (s *Set) ForceBreaker(group, url string, state health.State) bool {
	gen := s.current.Load()
	if gen == nil {
		return false
	}
	for _, g := range gen.groups() {
		for _, r := range *g.replicas.Load() {
			if g.cfg.Name == group && r.url() == url {
				r.health.Force(state)
				return true
			}
		}
	}
	return false
}
