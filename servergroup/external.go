package servergroup

import (
	"context"

	"gopkg.in/yaml.v3"
)

// configuredExternalLabels reads global.external_labels of the backend's
// configuration. A backend that does not show it is taken to have none.
func (r *replica) configuredExternalLabels(ctx context.Context) (map[string]string, error) {
	var status struct {
		YAML string `json:"yaml"`
	}
	if err := r.client.Status(ctx, "config", &status); err != nil {
		return nil, nil //nolint:nilerr // See above; that it can be reached is known.
	}
	var cfg struct {
		Global struct {
			ExternalLabels map[string]string `yaml:"external_labels"`
		} `yaml:"global"`
	}
	if err := yaml.Unmarshal([]byte(status.YAML), &cfg); err != nil {
		return nil, nil //nolint:nilerr // As above.
	}
	return cfg.Global.ExternalLabels, nil
}
