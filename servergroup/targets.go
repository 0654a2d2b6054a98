package servergroup

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// This file makes endpoints of what service discovery and static_configs tell, by
// relabeling, as Prometheus makes targets to scrape of it.

// pathPrefixLabel holds path_prefix while a target is relabeled, as __scheme__ holds
// scheme and __param_<name> the first value of a parameter in query_params.
const pathPrefixLabel = "__path_prefix__"

// An endpoint is a target after relabeling: what a replica is made of.
type endpoint struct {
	url    *url.URL
	params url.Values // of each request
	labels labels.Labels
}

// key tells whether two endpoints are the same: asked for the same in one spelling.
func (e endpoint) key() string { return spelling(e.url) + "?" + e.params.Encode() }

// spelling is a URL in one spelling, so that URLs can be compared.
func spelling(u *url.URL) string {
	one := *u
	one.Host = strings.ToLower(one.Host)
	one.Host = strings.TrimSuffix(one.Host, map[string]string{"http": ":80", "https": ":443"}[one.Scheme])
	return one.String()
}

// endpoint relabels a target. It returns nil if that drops it.
func (c *Config) endpoint(tg *targetgroup.Group, t model.LabelSet) (*endpoint, error) {
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
	params, err := c.paramsOf(ls)
	if err != nil {
		return nil, fmt.Errorf("target %q: %w", u.Redacted(), err)
	}
	b.Reset(ls)
	ls.Range(func(l labels.Label) {
		if strings.HasPrefix(l.Name, model.ReservedLabelPrefix) {
			b.Del(l.Name)
		}
	})
	return &endpoint{url: u, params: params, labels: b.Labels()}, nil
}

// paramsOf are query_params with what the labels of a target say of them.
func (c *Config) paramsOf(ls labels.Labels) (url.Values, error) {
	params := url.Values{}
	for name, values := range c.QueryParams {
		for _, v := range values {
			params.Add(name, string(v))
		}
	}
	var err error
	ls.Range(func(l labels.Label) {
		name, is := strings.CutPrefix(l.Name, model.ParamLabelPrefix)
		switch {
		case !is:
		case slices.Contains(ownParams, name):
			err = fmt.Errorf("label %s: requests set this parameter themselves", l.Name)
		case len(params[name]) > 0:
			params[name][0] = l.Value
		default:
			params.Set(name, l.Value)
		}
	})
	return params, err
}

// targetURL returns the URL below which the API of a target lies.
func targetURL(scheme, address, path string) (*url.URL, error) {
	if err := validateAddress(address); err != nil {
		return nil, err
	}
	if scheme != "http" && scheme != "https" {
		return nil, fmt.Errorf("target %q: its scheme %q is neither http nor https", address, scheme)
	}
	if path != "" {
		if problem := pathProblem(path); problem != "" {
			return nil, fmt.Errorf("target %q: its path prefix: %s", address, problem)
		}
	}
	return url.Parse(scheme + "://" + address + strings.TrimSuffix(path, "/"))
}

// unused returns the labels of an endpoint that mean nothing: they neither tell replicas
// nor groups apart, nor say what `labels` says.
func (c *Config) unused(e *endpoint) []string {
	var names []string
	e.labels.Range(func(l labels.Label) {
		if v, ok := c.Labels[l.Name]; (!ok || v != l.Value) && !slices.Contains(c.ReplicaLabels, l.Name) && !slices.Contains(c.GroupBy, l.Name) {
			names = append(names, l.Name)
		}
	})
	return names
}

// groupValues are the values that an endpoint has of the labels of group_by.
func (c *Config) groupValues(e *endpoint) ([]string, error) {
	values := make([]string, len(c.GroupBy))
	for i, name := range c.GroupBy {
		values[i] = e.labels.Get(name)
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

// validateTargets checks relabel_configs, and what it makes of the targets that the
// configuration names itself.
func (c *Config) validateTargets(errs *fieldErrors) {
	if relabeling := c.validateRelabeling(); len(relabeling) > 0 {
		*errs = append(*errs, relabeling...)
		return
	}
	told := *c // what is wrong with the group is not wrong with each target
	if told.Scheme != "https" {
		told.Scheme = "http"
	}
	if pathProblem(told.PathPrefix) != "" {
		told.PathPrefix = ""
	}
	told.QueryParams = maps.Clone(c.QueryParams)
	for _, name := range ownParams {
		delete(told.QueryParams, name)
	}
	c.eachStaticGroup(func(i int, tg *targetgroup.Group) {
		var unused []string
		for j, t := range tg.Targets {
			path := []any{"static_configs", i, "targets", j}
			e, err := told.endpoint(tg, t)
			switch {
			case err != nil:
				errs.add(err.Error(), path...)
				continue
			case e == nil:
				continue
			}
			if _, err := c.groupValues(e); err != nil {
				errs.add(fmt.Sprintf("the target %s: add it to the `labels` of these targets, or by `relabel_configs`", err), path...)
			}
			for _, name := range c.unused(e) {
				if _, own := tg.Labels[model.LabelName(name)]; !own {
					errs.add(fmt.Sprintf("relabel_configs gives the target a label %q that is neither in `replica_labels` nor in `group_by`: %s", name, otherLabels), path...)
				} else if !slices.Contains(unused, name) {
					unused = append(unused, name)
				}
			}
		}
		slices.Sort(unused)
		for _, name := range unused {
			errs.add("neither in `replica_labels` nor in `group_by`: "+otherLabels, "static_configs", i, "labels", name)
		}
	})
}

// otherLabels says what to do about labels of targets that mean nothing.
const otherLabels = "labels of the whole group belong under its `labels`"

func (c *Config) validateRelabeling() fieldErrors {
	var errs fieldErrors
	for i, r := range c.RelabelConfigs {
		if r == nil {
			errs.add("empty", "relabel_configs", i)
		} else if err := r.Validate(model.UTF8Validation); err != nil {
			errs.add(err.Error(), "relabel_configs", i)
		}
	}
	return errs
}

func (c *Config) eachStaticGroup(f func(i int, tg *targetgroup.Group)) {
	i := 0
	for _, sd := range c.ServiceDiscoveryConfigs {
		static, _ := sd.(discovery.StaticConfig)
		for _, tg := range static {
			f(i, tg)
			i++
		}
	}
}

// discovers tells whether targets are told by a discovery that may change them.
func (c *Config) discovers() bool { return len(c.dynamicConfigs()) > 0 }

// dynamicConfigs returns the kinds of discovery whose targets may change.
func (c *Config) dynamicConfigs() discovery.Configs {
	return slices.DeleteFunc(slices.Clone(c.ServiceDiscoveryConfigs), func(sd discovery.Config) bool {
		_, static := sd.(discovery.StaticConfig)
		return static
	})
}

// staticTargets are those of static_configs.
func (c *Config) staticTargets() []*targetgroup.Group {
	var all []*targetgroup.Group
	c.eachStaticGroup(func(_ int, tg *targetgroup.Group) { all = append(all, tg) })
	return all
}

// A StaticTarget is a target that the configuration names itself.
type StaticTarget struct {
	// URL is in one spelling, so that URLs can be compared.
	URL string
	// Params are those of its requests, which may be secret.
	Params string
	// Path leads to it from the group.
	Path Path
}

// StaticTargets returns the well-formed targets of static_configs that relabeling leaves.
func (c *Config) StaticTargets() []StaticTarget {
	if len(c.validateRelabeling()) > 0 {
		return nil
	}
	var targets []StaticTarget
	c.eachStaticGroup(func(i int, tg *targetgroup.Group) {
		for j, t := range tg.Targets {
			e, err := c.endpoint(tg, t)
			if err == nil && e != nil {
				targets = append(targets, StaticTarget{spelling(e.url), e.params.Encode(), Path{"static_configs", i, "targets", j}})
			}
		}
	})
	return targets
}
