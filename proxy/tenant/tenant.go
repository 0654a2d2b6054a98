// Package tenant finds out whose a request is, and refuses those that are not for it.
//
// A configuration with `tenants` says what a request shows to be of a tenant: a header, or a
// user or client certificate that package identity has checked. Guard.Identify
// puts the tenant into the request's context and restricts what the server groups show of
// themselves (request.Request). Guard.Permit lets a route's requests in that it is for.
// What no route has permitted is not sent: the default is to refuse. Without tenants,
// everybody is shown everything.
package tenant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/identity"
	"github.com/oneprom/oneprom/servergroup/request"
)

// Access says for whom a route is where there are tenants.
type Access int

const (
	// ForNobody is the access of a route that was given none.
	ForNobody Access = iota
	// ForAll is for those that are no tenant's, too: there is nothing in it.
	ForAll
	// ForTenants shows each tenant what is its own.
	ForTenants
	// ForAdmins shows everything, or does something to everybody.
	ForAdmins
)

// Tenants are those of a configuration that has some.
type Tenants struct {
	header  string // that names the tenant; "" is none
	list    []*Tenant
	byProof map[proof]*Tenant
}

// proof is what a request shows to be of a tenant.
type proof struct{ kind, value string }

// The kinds of proofs.
const (
	byHeader      = "header"
	byUser        = "user"
	byCertificate = "certificate"
)

// Tenant is one of those.
type Tenant struct {
	config.Tenant
	only []*labels.Matcher // of an administrator none
	pool *admission.Pool   // nil: there is no limit
}

// New returns the tenants of a configuration; nil if there are none. Those that were
// there before, with the same limit, keep their slots.
func New(cfg *config.Config, web *identity.WebConfig, before *Tenants) (*Tenants, error) {
	if len(cfg.Tenants) == 0 {
		return nil, nil
	}
	ts := &Tenants{header: cfg.Global.TenantHeader, byProof: map[proof]*Tenant{}}
	for _, c := range cfg.Tenants {
		t := &Tenant{Tenant: c}
		if !c.Admin {
			var err error
			if t.only, err = c.Matchers(); err != nil {
				return nil, fmt.Errorf("tenant %q: %w", c.Name, err)
			}
		}
		for _, user := range c.Users {
			if !web.HasUser(user) {
				return nil, fmt.Errorf("tenant %q: nobody checks the password of the user %q: add it to basic_auth_users in the file of --web.config.file", c.Name, user)
			}
		}
		if len(c.Certificates) > 0 && !web.VerifiesCertificates() {
			return nil, fmt.Errorf("tenant %q: nobody verifies client certificates: set client_auth_type in the file of --web.config.file to RequireAndVerifyClientCert or VerifyClientCertIfGiven", c.Name)
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

func (ts *Tenants) poolLike(c config.Tenant) *admission.Pool {
	if ts != nil {
		for _, t := range ts.list {
			if t.Name == c.Name && t.pool != nil && t.MaxConcurrency == c.MaxConcurrency {
				return t.pool
			}
		}
	}
	return admission.NewPool("tenant", fmt.Sprintf("max_concurrency of the tenant %q", c.Name), c.MaxConcurrency)
}

// of returns whose a request is. All that it shows must be of one tenant: a user does not
// become another one by a header. A user who is nobody's may be a proxy in front, which
// names the tenant.
func (ts *Tenants) of(r *http.Request) (*Tenant, error) {
	var found *Tenant
	var shown []proof
	if values := r.Header.Values(ts.header); ts.header != "" && len(values) > 0 {
		if len(values) > 1 || ts.byProof[proof{byHeader, values[0]}] == nil {
			return nil, api.NewError(http.StatusForbidden, "forbidden", fmt.Errorf("the header %s names no tenant", ts.header))
		}
		shown = append(shown, proof{byHeader, values[0]})
	}
	id := identity.Of(r.Context())
	if id.User != "" {
		shown = append(shown, proof{byUser, id.User})
	}
	for _, name := range id.Certificates {
		shown = append(shown, proof{byCertificate, name})
	}
	for _, p := range shown {
		switch t := ts.byProof[p]; {
		case t == nil:
		case found != nil && t != found:
			return nil, api.NewError(http.StatusForbidden, "forbidden", errors.New("the request is of more than one tenant: what its header, user and certificate say must agree"))
		default:
			found = t
		}
	}
	switch {
	case found != nil:
		return found, nil
	case len(shown) > 0:
		return nil, api.NewError(http.StatusForbidden, "forbidden", errors.New("no tenant has this user or certificate"))
	}
	how := "a user or a client certificate"
	if ts.header != "" {
		how = "the header " + ts.header + ", a user or a client certificate"
	}
	return nil, api.NewError(http.StatusUnauthorized, "unauthorized", errors.New("no tenant identified: send "+how))
}

// visitor is whose a request is, where there are tenants.
type visitor struct {
	*Tenant         // nil: nobody's
	why       error // it is nobody's
	permitted bool  // its route has let it in
}

type visitorKey struct{}

// visitorOf is nil where there are no tenants.
func visitorOf(ctx context.Context) *visitor {
	v, _ := ctx.Value(visitorKey{}).(*visitor)
	return v
}

// Of returns the tenant of a request; nil where there are no tenants.
func Of(ctx context.Context) *Tenant {
	if v := visitorOf(ctx); v != nil {
		return v.Tenant
	}
	return nil
}

// NameOf returns the name of a request's tenant; "" where there are no tenants.
func NameOf(ctx context.Context) string {
	if t := Of(ctx); t != nil {
		return t.Name
	}
	return ""
}

// Pool is what bounds how many requests of the tenant are worked on; nil if nothing does.
func (t *Tenant) Pool() *admission.Pool {
	if t == nil {
		return nil
	}
	return t.pool
}

// Restricted reports whether there is something that the request must not be shown. No
// tenant is one where there are none, and everybody is shown everything.
func (t *Tenant) Restricted() bool { return t != nil && !t.Admin }

// Guard lets requests reach the routes that are for them.
type Guard struct {
	Tenants func() *Tenants // nil: there are none
	Logger  *slog.Logger
}

// Identify finds out whose requests are, and what they are shown of the server groups:
// what is nobody's, nothing. No answer gets out of a route that has not permitted it.
func (g *Guard) Identify(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ts := g.Tenants()
		if ts == nil {
			h.ServeHTTP(w, r)
			return
		}
		v := &visitor{}
		v.Tenant, v.why = ts.of(r)
		ctx := context.WithValue(r.Context(), visitorKey{}, v)
		switch {
		case v.Tenant == nil:
			ctx = request.With(ctx, func(r *request.Request) { r.Restricted = true })
		case !v.Admin:
			ctx = request.With(ctx, func(r *request.Request) { r.Restricted, r.Shown = true, v.only })
		}
		rec, w := api.RecorderOf(w)
		defer rec.OnBegin(v.checkPermitted)()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// notOpen is the answer of a route that is for nobody.
const notOpen = "endpoint not available to tenants"

// checkPermitted replaces the answer of a route that has not permitted the request.
func (v *visitor) checkPermitted(header http.Header, code int) (int, []byte) {
	harmless := code/100 == 3 || code == http.StatusNotFound || code == http.StatusMethodNotAllowed
	if v.permitted || harmless {
		return code, nil
	}
	clear(header)
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	return http.StatusForbidden, []byte(notOpen + "\n")
}

// Permit lets the requests of a route in that it is for. Errors are plain text, or in the
// API's envelope.
func (g *Guard) Permit(access Access, plain bool, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := visitorOf(r.Context())
		if v == nil {
			h(w, r)
			return
		}
		var err error
		switch {
		case access == ForAll:
		case v.Tenant == nil:
			err = v.why
		case access == ForTenants, access == ForAdmins && v.Admin:
		case access == ForAdmins:
			err = api.NewError(http.StatusForbidden, "forbidden", errors.New("this is for administrators only (`admin: true` under `tenants`)"))
		default:
			err = api.NewError(http.StatusForbidden, "forbidden", errors.New(notOpen))
		}
		v.permitted = true // to answer, if only with the error
		if err == nil {
			h(w, r)
			return
		}
		e := api.Classify(err)
		if plain {
			http.Error(w, e.Error(), e.Code)
			return
		}
		api.RespondError(w, e, g.Logger)
	}
}
