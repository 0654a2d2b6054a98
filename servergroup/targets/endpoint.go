// Package targets turns the targets of service discovery and static_configs into endpoints, by
// relabeling, and divides these into shards, each of which becomes a group (`group_by`).
package targets

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/oneprom/oneprom/servergroup/config"
)

// pathPrefixLabel holds path_prefix while a target is relabeled, as __scheme__ holds
// scheme and __param_<name> the first value of a parameter in query_params.
const pathPrefixLabel = "__path_prefix__"

// An Endpoint is a target after relabeling. It becomes a replica.
type Endpoint struct {
	URL    *url.URL
	Params url.Values // of each request
	Labels labels.Labels
}

// Key identifies the URL and the parameters of an endpoint, whatever their spelling.
func (e Endpoint) Key() string { return spelling(e.URL) + "?" + e.Params.Encode() }

// spelling returns a URL in its canonical spelling, so that URLs can be compared.
func spelling(u *url.URL) string {
	one := *u
	one.Host = strings.ToLower(one.Host)
	one.Host = strings.TrimSuffix(one.Host, map[string]string{"http": ":80", "https": ":443"}[one.Scheme])
	return one.String()
}

// relabeled turns a target into an endpoint. It returns nil if relabeling drops the target.
func relabeled(c *config.Group, tg *targetgroup.Group, t model.LabelSet) (*Endpoint, error) {
	b := labels.NewBuilder(labels.EmptyLabels())
	b.Set(model.SchemeLabel, c.Scheme)
	b.Set(pathPrefixLabel, c.PathPrefix)
	for name, values := range c.QueryParams {
		if len(values) > 0 {
			b.Set(model.ParamLabelPrefix+name, string(values[0]))
		}
	}
	for _, of := range []model.LabelSet{tg.Labels, t} {
		for name, value := range of {
			b.Set(string(name), string(value))
		}
	}
	if !relabel.ProcessBuilder(b, c.RelabelConfigs...) {
		return nil, nil
	}
	ls := b.Labels()
	u, err := targetURL(ls.Get(model.SchemeLabel), ls.Get(model.AddressLabel), ls.Get(pathPrefixLabel))
	if err != nil {
		return nil, err
	}
	params, err := paramsOf(c, ls)
	if err != nil {
		return nil, fmt.Errorf("target %q: %w", u.Redacted(), err)
	}
	b.Reset(ls)
	ls.Range(func(l labels.Label) {
		if strings.HasPrefix(l.Name, model.ReservedLabelPrefix) {
			b.Del(l.Name)
		}
	})
	return &Endpoint{URL: u, Params: params, Labels: b.Labels()}, nil
}

// paramsOf returns query_params, changed by the __param_ labels of a target.
func paramsOf(c *config.Group, ls labels.Labels) (url.Values, error) {
	params := url.Values{}
	for name, values := range c.QueryParams {
		for _, v := range values {
			params.Add(name, string(v))
		}
	}
	var err error
	ls.Range(func(l labels.Label) {
		name, ok := strings.CutPrefix(l.Name, model.ParamLabelPrefix)
		switch {
		case !ok:
		case slices.Contains(config.ReservedParams, name):
			err = fmt.Errorf("label %s: requests set this parameter themselves", l.Name)
		case len(params[name]) > 0:
			params[name][0] = l.Value
		default:
			params.Set(name, l.Value)
		}
	})
	return params, err
}

// targetURL returns the base URL of the API of a target.
func targetURL(scheme, address, path string) (*url.URL, error) {
	if err := ValidateAddress(address); err != nil {
		return nil, err
	}
	if scheme != "http" && scheme != "https" {
		return nil, fmt.Errorf("target %q: its scheme %q is neither http nor https", address, scheme)
	}
	if path != "" {
		if problem := config.PathProblem(path); problem != "" {
			return nil, fmt.Errorf("target %q: its path prefix: %s", address, problem)
		}
	}
	return url.Parse(scheme + "://" + address + strings.TrimSuffix(path, "/"))
}

// ValidateAddress checks that address is a host, with or without a port. The
// error does not show what may be a password.
func ValidateAddress(address string) error {
	shown, _, _ := strings.Cut(address[strings.LastIndex(address, "@")+1:], "?")
	malformed := fmt.Errorf("target %q is not of the form host:port", shown)
	switch {
	case strings.Contains(address, "@"):
		return fmt.Errorf("target %q comes with credentials: they belong into `basic_auth`", shown)
	case strings.Contains(address, "/"):
		return fmt.Errorf("%w: the rest of the URL belongs into `scheme` and `path_prefix`", malformed)
	}
	u, err := url.Parse("http://" + address)
	if err != nil || u.Hostname() == "" || strings.ContainsAny(address, "?#") {
		return malformed
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%w: ports go from 1 to 65535", malformed)
		}
	}
	return nil
}

// unusedLabels returns the labels of an endpoint that have no effect: they are neither in
// replica_labels nor in group_by, and do not repeat one of the group's labels.
func unusedLabels(c *config.Group, e *Endpoint) []string {
	var names []string
	e.Labels.Range(func(l labels.Label) {
		if v, ok := c.Labels[l.Name]; (!ok || v != l.Value) && !slices.Contains(c.ReplicaLabels, l.Name) && !slices.Contains(c.GroupBy, l.Name) {
			names = append(names, l.Name)
		}
	})
	return names
}

// groupValues returns the values of an endpoint's group_by labels.
func groupValues(c *config.Group, e *Endpoint) ([]string, error) {
	values := make([]string, len(c.GroupBy))
	for i, name := range c.GroupBy {
		values[i] = e.Labels.Get(name)
		if values[i] == "" {
			return nil, fmt.Errorf("lacks the label %q of `group_by`", name)
		}
		if len(values[i]) > maxGroupValue || !model.LabelValue(values[i]).IsValid() {
			return nil, fmt.Errorf("has a label %q that is not UTF-8, or longer than %d bytes", name, maxGroupValue)
		}
	}
	return values, nil
}

// maxGroupValue bounds the values (bytes) that become part of the names of groups, which
// warnings and headers carry.
const maxGroupValue = 256

// Validate checks relabel_configs, and their result for the targets of static_configs. Its error
// joins a *config.FieldError for each problem. It must be called before relabel_configs are used,
// as it sets which label names they allow.
func Validate(c *config.Group) error {
	errs := validateRelabeling(c)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	checked := *c // without mistakes of the group, which are not reported for each target
	if checked.Scheme != "https" {
		checked.Scheme = "http"
	}
	if config.PathProblem(checked.PathPrefix) != "" {
		checked.PathPrefix = ""
	}
	checked.QueryParams = maps.Clone(c.QueryParams)
	for _, name := range config.ReservedParams {
		delete(checked.QueryParams, name)
	}
	eachStaticGroup(c, func(i int, tg *targetgroup.Group) {
		var unused []string
		for j, t := range tg.Targets {
			path := []any{"static_configs", i, "targets", j}
			e, err := relabeled(&checked, tg, t)
			switch {
			case err != nil:
				errs.Add(err.Error(), path...)
				continue
			case e == nil:
				continue
			}
			if _, err := groupValues(c, e); err != nil {
				errs.Add(fmt.Sprintf("the target %s: add it to the `labels` of these targets, or by `relabel_configs`", err), path...)
			}
			for _, name := range unusedLabels(c, e) {
				if _, own := tg.Labels[model.LabelName(name)]; !own {
					errs.Add(fmt.Sprintf("relabel_configs gives the target a label %q that is neither in `replica_labels` nor in `group_by`: %s", name, otherLabels), path...)
				} else if !slices.Contains(unused, name) {
					unused = append(unused, name)
				}
			}
		}
		slices.Sort(unused)
		for _, name := range unused {
			errs.Add("neither in `replica_labels` nor in `group_by`: "+otherLabels, "static_configs", i, "labels", name)
		}
	})
	return errors.Join(errs...)
}

// otherLabels is the advice about labels of targets that have no effect.
const otherLabels = "labels of the whole group belong under its `labels`"

func validateRelabeling(c *config.Group) config.FieldErrors {
	var errs config.FieldErrors
	for i, r := range c.RelabelConfigs {
		if r == nil {
			errs.Add("empty", "relabel_configs", i)
		} else if err := r.Validate(model.UTF8Validation); err != nil {
			errs.Add(err.Error(), "relabel_configs", i)
		}
	}
	return errs
}

// eachStaticGroup calls f for each element of static_configs.
func eachStaticGroup(c *config.Group, f func(i int, tg *targetgroup.Group)) {
	i := 0
	for _, sd := range c.ServiceDiscoveryConfigs {
		static, _ := sd.(discovery.StaticConfig)
		for _, tg := range static {
			f(i, tg)
			i++
		}
	}
}

// Discovers reports whether the targets of a group may change without a reload.
func Discovers(c *config.Group) bool { return len(Dynamic(c)) > 0 }

// Dynamic returns the service discoveries whose targets may change.
func Dynamic(c *config.Group) discovery.Configs {
	return slices.DeleteFunc(slices.Clone(c.ServiceDiscoveryConfigs), func(sd discovery.Config) bool {
		_, static := sd.(discovery.StaticConfig)
		return static
	})
}

// Static returns the target groups of static_configs.
func Static(c *config.Group) []*targetgroup.Group {
	var all []*targetgroup.Group
	eachStaticGroup(c, func(_ int, tg *targetgroup.Group) { all = append(all, tg) })
	return all
}

// A StaticTarget is a target of static_configs.
type StaticTarget struct {
	// URL is in its canonical spelling, so that URLs can be compared.
	URL string
	// Params are the encoded parameters of its requests, which may be secret.
	Params string
	// Path is its place in the configuration of the group.
	Path config.Path
}

// StaticTargets returns the well-formed targets of static_configs that relabeling leaves.
func StaticTargets(c *config.Group) []StaticTarget {
	if len(validateRelabeling(c)) > 0 {
		return nil
	}
	var targets []StaticTarget
	eachStaticGroup(c, func(i int, tg *targetgroup.Group) {
		for j, t := range tg.Targets {
			e, err := relabeled(c, tg, t)
			if err == nil && e != nil {
				targets = append(targets, StaticTarget{spelling(e.URL), e.Params.Encode(), config.Path{"static_configs", i, "targets", j}})
			}
		}
	})
	return targets
}
