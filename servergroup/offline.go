package servergroup

import (
	"time"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Offline returns a view of the groups of a configuration for explanations. It has the replicas
// that static_configs name, and must not be asked for samples.
func Offline(cfgs []config.Group, partial config.PartialResponse, now time.Time) *view.View {
	var groups []view.Group
	for i := range cfgs {
		shards, _ := targets.Shards(&cfgs[i], targets.Static(&cfgs[i]))
		if len(shards) == 0 || len(cfgs[i].GroupBy) > 0 && targets.Discovers(&cfgs[i]) {
			shards = append(shards, targets.Shard{}) // stands for the groups that only discovery finds
		}
		for _, s := range shards {
			cfg := targets.GroupOf(&cfgs[i], s.Values)
			g := view.Group{Config: &cfg, Entry: cfgs[i].Name, Offline: true}
			for _, e := range s.Endpoints {
				g.Replicas = append(g.Replicas, replica.Offline(&cfg, e.URL))
			}
			groups = append(groups, g.Divided(cfg.Portions(false))...)
		}
	}
	return view.New(&request.Request{}, now, partial, groups, &fanout.Budget{}, nil)
}
