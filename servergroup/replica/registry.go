package replica

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Registry makes replicas, and keeps what outlives a reload of the configuration: their
// health, by group and URL, the request slots of regions, and the metrics.
type Registry struct {
	// Options are those that it was made with.
	Options RegistryOptions
	// Metrics count the requests to the replicas.
	Metrics *Metrics
	// Extra is the budget of hedges and retries.
	Extra health.Extra

	mtx     sync.Mutex // guards the maps
	known   map[healthKey]*health.Replica
	regions map[string]*health.Slots
}

// RegistryOptions are what all replicas have in common.
type RegistryOptions struct {
	Life   *lifetime.Lifetime // probes end with it
	Logger *slog.Logger
	Now    func() time.Time
	// Features are the features of PromQL that are enabled here, by Prometheus' names.
	Features []string
	// RegionConcurrency is how many requests may be under way in one region; 0 is no bound.
	RegionConcurrency int
}

type healthKey struct{ group, region, url string }

// NewRegistry returns a registry without replicas.
func NewRegistry(o RegistryOptions, m *Metrics) *Registry {
	return &Registry{Options: o, Metrics: m, known: map[healthKey]*health.Replica{}, regions: map[string]*health.Slots{}}
}

// Group is what a replica has of its group.
type Group struct {
	Config *config.Group
	Client *http.Client
	// Forwarding sends requests with a client's Authorization, where Client would send the
	// group's own. Nil: it would not.
	Forwarding *http.Client
	Logger     *slog.Logger
}

// NewReplica makes a replica of a group. It has the health that the replicas before it with
// the same URL had.
func (h *Registry) NewReplica(g Group, e targets.Endpoint) *Replica {
	cfg := g.Config
	header := http.Header{}
	for k, v := range cfg.Headers {
		header.Set(k, string(v))
	}
	r := &Replica{
		group:    cfg,
		Endpoint: e,
		now:      h.Options.Now,
		life:     h.Options.Life,
		logger:   g.Logger,
		features: h.Options.Features,
		Metrics:  h.Metrics,
		client: &transport.Client{
			HTTP:     g.Client,
			Base:     e.URL,
			ReadPath: cfg.RemoteReadPath,
			Header:   header,
			Params:   e.Params,

			Forward:    cfg.ForwardedHeaders(),
			Forwarding: g.Forwarding,

			Group:    cfg.Name,
			Distance: &transport.Distance{},
			Clock:    &transport.Clock{},
		},
	}
	h.register(r)
	return r
}

// register gives a replica its health, and the slots of its region.
func (h *Registry) register(r *Replica) {
	h.mtx.Lock()
	defer h.mtx.Unlock()
	key := keyOfHealth(r)
	known, ok := h.known[key]
	if !ok {
		known = health.NewReplica(health.Options{
			URL: r.URL(), Concurrency: r.group.MaxConcurrency, Judge: judge, Run: h.Options.Life.Run, Logger: r.logger,
			Changed: func(to health.State) {
				h.Metrics.transitions.WithLabelValues(string(to), key.group, key.region, key.url).Inc()
			},
		})
		h.known[key] = known
	}
	known.SetProbe(r.Alive)
	r.Health = known
	if region := r.group.Region; region != "" {
		if h.regions[region] == nil {
			h.regions[region] = health.NewSlots(h.Options.RegionConcurrency)
		}
		r.region = h.regions[region]
	}
}

func keyOfHealth(r *Replica) healthKey {
	return healthKey{r.group.Name, r.group.Region, r.URL()}
}

// Len is how many replicas the health of is known.
func (h *Registry) Len() int {
	h.mtx.Lock()
	defer h.mtx.Unlock()
	return len(h.known)
}

// Keep forgets what is known of the replicas and of the regions that are not among these.
func (h *Registry) Keep(replicas []*Replica, regions map[string]bool) {
	there := map[healthKey]bool{}
	for _, r := range replicas {
		there[keyOfHealth(r)] = true
	}
	h.mtx.Lock()
	defer h.mtx.Unlock()
	for key, known := range h.known {
		if !there[key] {
			known.Close()
			delete(h.known, key)
			h.Metrics.forget(prometheus.Labels{"group": key.group, "region": key.region, "replica": key.url})
		}
	}
	for region := range h.regions {
		if !regions[region] {
			delete(h.regions, region)
		}
	}
}
