package servergroup

import (
	"slices"
	"time"

	"github.com/oneprom/oneprom/servergroup/config"
)

// GroupStatus is what /api/v1/status/groups tells of a group.
type GroupStatus struct {
	Name            string            `json:"name"`
	Region          string            `json:"region,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	IntrinsicLabels []string          `json:"intrinsicLabels,omitempty"`
	ReplicaLabels   []string          `json:"replicaLabels,omitempty"`
	// MinTime and MaxTime bound the samples the group is asked for now.
	MinTime *time.Time `json:"minTime,omitempty"`
	MaxTime *time.Time `json:"maxTime,omitempty"`
	// Findings are what is wrong with the group's configuration, its targets and
	// what answers have shown of both.
	Findings []string        `json:"findings,omitempty"`
	Replicas []ReplicaStatus `json:"replicas"`
}

// ReplicaStatus is what is known of a replica.
type ReplicaStatus struct {
	URL string `json:"url"`
	// Health is "up", "down" or "unknown" (not probed yet).
	Health  string `json:"health"`
	Kind    string `json:"kind,omitempty"`
	Version string `json:"version,omitempty"`
	// Breaker is the state of the circuit breaker: closed, half-open or open.
	Breaker string `json:"breaker,omitempty"`
	// Transport is how samples are fetched; TransportReason why not in a better
	// way.
	Transport       string            `json:"transport,omitempty"`
	TransportReason string            `json:"transportReason,omitempty"`
	ExternalLabels  map[string]string `json:"externalLabels,omitempty"`
	// Findings are what of the group's configuration does not fit the backend.
	Findings      []string   `json:"findings,omitempty"`
	LastProbe     *time.Time `json:"lastProbe,omitempty"`
	LastError     string     `json:"lastError,omitempty"`
	LastErrorTime *time.Time `json:"lastErrorTime,omitempty"`
}

// Status tells of all groups, in configured order.
func (s *Set) Status() []GroupStatus {
	list := []GroupStatus{}
	gen := s.current.Load()
	if gen == nil {
		return list
	}
	for _, e := range gen.entries {
		for _, g := range *e.groups.Load() {
			list = append(list, g.status(s.opts.Now(), e.findingsOf(g)))
		}
	}
	return list
}

// status tells of the group; about are the findings about its targets.
func (g *group) status(now time.Time, about []string) GroupStatus {
	lo, hi := g.cfg.TimeRange.Bounds(now)
	st := GroupStatus{
		Name:            g.cfg.Name,
		Region:          g.cfg.Region,
		Labels:          g.cfg.Labels,
		IntrinsicLabels: g.cfg.IntrinsicLabels,
		ReplicaLabels:   g.cfg.ReplicaLabels,
		Replicas:        []ReplicaStatus{},
	}
	if lo > config.MinTime {
		st.MinTime = timeOf(lo)
	}
	if hi < config.MaxTime {
		st.MaxTime = timeOf(hi)
	}
	st.Findings = append(about, g.cfg.PublicFindings(g.found.List(now))...)
	st.Findings = append(st.Findings, differentExternal(&g.cfg, *g.replicas.Load())...)
	for _, r := range *g.replicas.Load() {
		st.Replicas = append(st.Replicas, r.status())
	}
	return st
}

func (r *replica) status() ReplicaStatus {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	st := ReplicaStatus{URL: r.url(), Health: "unknown", Breaker: string(r.health.State())}
	if !r.probedAt.IsZero() {
		at := r.probedAt.UTC()
		st.LastProbe = &at
	}
	if p := r.profile; p != nil {
		st.Health = "up"
		st.Kind, st.Version = string(p.Kind), p.Version
		st.Transport, st.TransportReason = string(p.method), p.why
		st.ExternalLabels = p.external
		st.Findings = slices.Concat(p.findings, r.group.PublicFindings(r.inData))
		if doubt := clockDoubt(r.client); doubt != "" {
			st.Findings = append(st.Findings, doubt)
		}
	}
	if r.probeErr != nil {
		st.Health = "down"
	}
	if r.lastErr != nil && (!r.group.Forwards() || r.lastErr == r.probeErr) {
		at := r.lastErrAt.UTC()
		st.LastError, st.LastErrorTime = r.lastErr.Error(), &at
	}
	return st
}

func timeOf(ms int64) *time.Time {
	t := time.UnixMilli(ms).UTC()
	return &t
}
