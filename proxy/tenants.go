package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"gopkg.in/yaml.v3"

	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/servergroup"
)

// This file finds out whose a request is, and refuses those that are not for it. What a
// tenant is shown of the server groups is restricted there (servergroup.Request).

// tenants are those of a configuration that has some.
type tenants struct {
	header  string // that names the tenant; "" is none
	list    []*tenant
	byProof map[proof]*tenant
}

// proof is what a request shows to be of a tenant.
type proof struct{ kind, value string }

// The kinds of proofs.
const (
	byHeader      = "header"
	byUser        = "user"
	byCertificate = "certificate"
)

type tenant struct {
	config.Tenant
	only []*labels.Matcher // of an administrator none
	pool *admission.Pool   // nil: there is no limit
}

// newTenants returns the tenants of a configuration; nil if there are none. Those that were
// there before, with the same limit, keep their slots.
func newTenants(cfg *config.Config, webConfig string, before *tenants) (*tenants, error) {
	if len(cfg.Tenants) == 0 {
		return nil, nil
	}
	ts := &tenants{header: cfg.Global.TenantHeader, byProof: map[proof]*tenant{}}
	checked, err := usersWithPasswords(webConfig)
	if err != nil {
		return nil, err
	}
	for _, c := range cfg.Tenants {
		t := &tenant{Tenant: c}
		if !c.Admin {
			if t.only, err = c.Matchers(); err != nil {
				return nil, fmt.Errorf("tenant %q: %w", c.Name, err)
			}
		}
		for _, user := range c.Users {
			if !checked[user] {
				return nil, fmt.Errorf("tenant %q: nobody checks the password of the user %q: add it to basic_auth_users in the file of --web.config.file", c.Name, user)
			}
		}
		if c.MaxConcurrency > 0 {
			t.pool = before.poolLike(c)
		}
		for kind, values := range map[string][]string{byHeader: c.HeaderValues, byUser: c.Users, byCertificate: c.Certificates} {
			for _, value := range values {
				ts.byProof[proof{kind, value}] = t
			}
		}
		ts.list = append(ts.list, t)
	}
	return ts, nil
}

func (ts *tenants) poolLike(c config.Tenant) *admission.Pool {
	if ts != nil {
		for _, t := range ts.list {
			if t.Name == c.Name && t.pool != nil && t.MaxConcurrency == c.MaxConcurrency {
				return t.pool
			}
		}
	}
	return admission.NewPool("tenant", fmt.Sprintf("max_concurrency of the tenant %q", c.Name), c.MaxConcurrency)
}

// usersWithPasswords are those that the listener asks for passwords.
func usersWithPasswords(webConfig string) (map[string]bool, error) {
	if webConfig == "" {
		return nil, nil
	}
	data, err := os.ReadFile(webConfig)
	if err != nil {
		return nil, fmt.Errorf("--web.config.file: %w", err)
	}
	var file struct {
		Users map[string]yaml.Node `yaml:"basic_auth_users"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		return nil, errors.New("--web.config.file: cannot be read as YAML")
	}
	users := map[string]bool{}
	for name := range file.Users {
		users[name] = true
	}
	return users, nil
}

// of returns whose a request is. All that it shows must be of one tenant: a user does not
// become another one by a header. A user who is nobody's may be a proxy in front, which
// names the tenant.
func (ts *tenants) of(r *http.Request) (*tenant, error) {
	var found *tenant
	var shown []proof
	if values := r.Header.Values(ts.header); ts.header != "" && len(values) > 0 {
		if len(values) > 1 || ts.byProof[proof{byHeader, values[0]}] == nil {
			return nil, &apiError{http.StatusForbidden, "forbidden", fmt.Errorf("the header %s names no tenant", ts.header)}
		}
		shown = append(shown, proof{byHeader, values[0]})
	}
	if user, _, ok := r.BasicAuth(); ok {
		shown = append(shown, proof{byUser, user})
	}
	for _, name := range certifiedNames(r) {
		shown = append(shown, proof{byCertificate, name})
	}
	for _, p := range shown {
		switch t := ts.byProof[p]; {
		case t == nil:
		case found != nil && t != found:
			return nil, &apiError{http.StatusForbidden, "forbidden", errors.New("the request is of more than one tenant: what its header, user and certificate say must agree")}
		default:
			found = t
		}
	}
	switch {
	case found != nil:
		return found, nil
	case len(shown) > 0:
		return nil, &apiError{http.StatusForbidden, "forbidden", errors.New("the request is of no tenant: its user or certificate is none's")}
	}
	how := "by a user or a client certificate"
	if ts.header != "" {
		how = "by the header " + ts.header + ", a user or a client certificate"
	}
	return nil, &apiError{http.StatusUnauthorized, "unauthorized", errors.New("the request is of no tenant: say whose it is " + how)}
}

// certifiedNames are the names in a client certificate that was verified.
func certifiedNames(r *http.Request) []string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return nil
	}
	cert := r.TLS.VerifiedChains[0][0]
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, uri := range cert.URIs {
		names = append(names, uri.String())
	}
	if cert.Subject.CommonName != "" {
		names = append(names, cert.Subject.CommonName)
	}
	return names
}

// visitor is whose a request is, where there are tenants.
type visitor struct {
	*tenant         // nil: nobody's
	why       error // it is nobody's
	permitted bool  // its route has let it in
}

type visitorKey struct{}

// visitorOf is nil where there are no tenants.
func visitorOf(ctx context.Context) *visitor {
	v, _ := ctx.Value(visitorKey{}).(*visitor)
	return v
}

// tenantOf is nil where there are no tenants.
func tenantOf(ctx context.Context) *tenant {
	if v := visitorOf(ctx); v != nil {
		return v.tenant
	}
	return nil
}

// name is "" without tenants.
func (t *tenant) name() string {
	if t == nil {
		return ""
	}
	return t.Name
}

// restricted tells whether there is something that the request must not be told. No
// tenant is one where there are none, and everybody is shown everything.
func (t *tenant) restricted() bool { return t != nil && !t.Admin }

// identify finds out whose requests are, and what they are shown of the server groups:
// what is nobody's, nothing. No answer gets out of a route that has not permitted it.
func (s *Server) identify(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ts := s.tenants.Load()
		if ts == nil {
			h.ServeHTTP(w, r)
			return
		}
		v := &visitor{}
		v.tenant, v.why = ts.of(r)
		ctx := context.WithValue(r.Context(), visitorKey{}, v)
		switch {
		case v.tenant == nil:
			ctx = servergroup.WithRequest(ctx, func(r *servergroup.Request) { r.Restricted = true })
		case !v.Admin:
			ctx = servergroup.WithRequest(ctx, func(r *servergroup.Request) { r.Restricted, r.Shown = true, v.only })
		}
		h.ServeHTTP(&permittedWriter{watchedWriter: watchedWriter{ResponseWriter: w}, of: v}, r.WithContext(ctx))
	})
}

// permittedWriter replaces the answer of a route that has not permitted the request.
type permittedWriter struct {
	watchedWriter
	of      *visitor
	refused bool
}

func (w *permittedWriter) WriteHeader(code int) {
	harmless := code/100 == 3 || code == http.StatusNotFound || code == http.StatusMethodNotAllowed
	if w.begun || w.of.permitted || harmless {
		w.watchedWriter.WriteHeader(code)
		return
	}
	w.refused = true
	clear(w.Header())
	http.Error(&w.watchedWriter, "this route is not open where there are tenants", http.StatusForbidden)
}

func (w *permittedWriter) Write(b []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.refused {
		return len(b), nil
	}
	return w.watchedWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *permittedWriter) Flush() {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	w.watchedWriter.Flush()
}

// permit lets the requests of a route in that its verdict is for.
func (s *Server) permit(route string, h http.HandlerFunc) http.HandlerFunc {
	s.routes = append(s.routes, route)
	verdict := verdicts[route]
	return func(w http.ResponseWriter, r *http.Request) {
		v := visitorOf(r.Context())
		if v == nil {
			h(w, r)
			return
		}
		var err error
		switch {
		case verdict == forAll:
		case v.tenant == nil:
			err = v.why
		case verdict == forTenants, verdict == forAdmins && v.Admin:
		case verdict == forAdmins:
			err = &apiError{http.StatusForbidden, "forbidden", errors.New("this is for administrators only (`admin: true` under `tenants`)")}
		default:
			err = &apiError{http.StatusForbidden, "forbidden", errors.New("this route is not open where there are tenants")}
		}
		v.permitted = true // to answer, if only with the error
		if err == nil {
			h(w, r)
			return
		}
		e := classify(err)
		if strings.HasPrefix(route, "/api/v1/") && route != "/api/v1/read" {
			respondError(w, e, s.logger)
			return
		}
		http.Error(w, e.Error(), e.code)
	}
}
