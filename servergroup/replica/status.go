package replica

import (
	"slices"
	"time"
)

// Status describes a replica, as /api/v1/status/groups shows it.
type Status struct {
	URL string `json:"url"`
	// Health is "up", "down" or "unknown" (not probed yet).
	Health  string `json:"health"`
	Kind    string `json:"kind,omitempty"`
	Version string `json:"version,omitempty"`
	// Breaker is the state of the circuit breaker: closed, half-open or open.
	Breaker string `json:"breaker,omitempty"`
	// Doubted reports whether the last request has failed, so that other replicas are asked first.
	Doubted bool `json:"doubted,omitempty"`
	// Transport is how samples are fetched; TransportReason is why no better way is used.
	Transport       string            `json:"transport,omitempty"`
	TransportReason string            `json:"transportReason,omitempty"`
	ExternalLabels  map[string]string `json:"externalLabels,omitempty"`
	// Findings are mistakes in the group's configuration that the server has shown.
	Findings      []string   `json:"findings,omitempty"`
	LastProbe     *time.Time `json:"lastProbe,omitempty"`
	LastError     string     `json:"lastError,omitempty"`
	LastErrorTime *time.Time `json:"lastErrorTime,omitempty"`
}

// Status returns the present status of the replica.
func (r *Replica) Status() Status {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	st := Status{URL: r.URL(), Health: "unknown", Breaker: string(r.Health.State()), Doubted: r.Health.Doubted()}
	if !r.probedAt.IsZero() {
		at := r.probedAt.UTC()
		st.LastProbe = &at
	}
	if p := r.profile; p != nil {
		st.Health = "up"
		st.Kind, st.Version = string(p.Kind), p.Version
		st.Transport, st.TransportReason = string(p.Method), p.methodReason
		st.ExternalLabels = p.External
		st.Findings = slices.Concat(p.findings, r.group.PublicFindings(r.dataFindings))
		for _, text := range []string{ClockDoubt(r.client), lostForms(r.client)} {
			if text != "" && !slices.Contains(st.Findings, text) {
				st.Findings = append(st.Findings, text)
			}
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
