package replica

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Registry makes replicas, and keeps what outlives a reload of the configuration: the health of
// replicas, the request slots of regions, and the metrics. It is safe for concurrent use.
type Registry struct {
	// Options are those of NewRegistry.
	Options RegistryOptions
	// Metrics count the requests to the replicas.
	Metrics *Metrics
	// Extra is the budget of hedges and retries.
	Extra health.Extra

	mtx     sync.Mutex // guards the maps
	health  map[replicaKey]*health.Replica
	regions map[string]*health.Slots
}

// RegistryOptions are what all replicas of a registry have in common.
type RegistryOptions struct {
	Life   *lifetime.Lifetime // probes end with it
	Logger *slog.Logger
	Now    func() time.Time // the clock
	// Features are the features of PromQL that are enabled in oneprom, by Prometheus' names.
	Features []string
	// RegionConcurrency is the most requests to one region at a time; 0 is no limit.
	RegionConcurrency int
}

type replicaKey struct{ group, region, url string }

// NewRegistry returns a registry without replicas.
func NewRegistry(o RegistryOptions, m *Metrics) *Registry {
	return &Registry{Options: o, Metrics: m, health: map[replicaKey]*health.Replica{}, regions: map[string]*health.Slots{}}
}

// Group is what the replicas of a group have in common.
type Group struct {
	Config *config.Group
	// Client sends their requests.
	Client *http.Client
	// Forwarding sends requests with the Authorization of a client, where Client would replace
	// it by the group's own; nil if Client would not.
	Forwarding *http.Client
	Logger     *slog.Logger
}

// NewReplica returns a replica of a group. Replicas of one group, region and URL share their
// health.
func (reg *Registry) NewReplica(g Group, e targets.Endpoint) *Replica {
	cfg := g.Config
	header := http.Header{}
	for k, v := range cfg.Headers {
		header.Set(k, string(v))
	}
	r := &Replica{
		group:    cfg,
		Endpoint: e,
		url:      e.URL.Redacted(),
		now:      reg.Options.Now,
		life:     reg.Options.Life,
		logger:   g.Logger,
		features: reg.Options.Features,
		Metrics:  reg.Metrics,

		sighted:    map[labelmap.Sighting]int{},
		confirming: make(chan struct{}, 1),
		rereading:  sharedRead{slot: make(chan struct{}, 1)},
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
			Forms:    &transport.Forms{},
		},
	}
	reg.register(r)
	return r
}

// register sets the health of a replica and the slots of its region.
func (reg *Registry) register(r *Replica) {
	reg.mtx.Lock()
	defer reg.mtx.Unlock()
	region := reg.regions[r.group.Region]
	if region == nil && r.group.Region != "" {
		region = health.NewSlots(reg.Options.RegionConcurrency)
		reg.regions[r.group.Region] = region
	}
	key := keyOf(r)
	shared, ok := reg.health[key]
	if !ok {
		shared = health.NewReplica(health.Options{
			URL: r.URL(), Concurrency: r.group.MaxConcurrency, Region: region, Judge: judge, Run: reg.Options.Life.Run, Logger: r.logger,
			Changed: func(to health.State) {
				reg.Metrics.transitions.WithLabelValues(string(to), key.group, key.region, key.url).Inc()
			},
		})
		reg.health[key] = shared
	}
	shared.SetProbe(r.Alive)
	r.Health = shared
}

func keyOf(r *Replica) replicaKey {
	return replicaKey{r.group.Name, r.group.Region, r.URL()}
}

// Len returns the number of replicas whose health is kept.
func (reg *Registry) Len() int {
	reg.mtx.Lock()
	defer reg.mtx.Unlock()
	return len(reg.health)
}

// Keep drops health, slots and metrics of all other replicas and regions.
func (reg *Registry) Keep(replicas []*Replica, regions map[string]bool) {
	inUse := map[replicaKey]bool{}
	for _, r := range replicas {
		inUse[keyOf(r)] = true
	}
	reg.mtx.Lock()
	defer reg.mtx.Unlock()
	for key, unused := range reg.health {
		if !inUse[key] {
			unused.Close()
			delete(reg.health, key)
			reg.Metrics.forget(prometheus.Labels{"group": key.group, "region": key.region, "replica": key.url})
		}
	}
	for region := range reg.regions {
		if !regions[region] {
			delete(reg.regions, region)
		}
	}
}
