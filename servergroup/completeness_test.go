package servergroup

import (
	"errors"
	"testing"

	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// TestFoldLost: each replica that was lost is named once, whatever it has said to whom.
func TestFoldLost(t *testing.T) {
	eu, us := &config.Group{Name: "eu"}, &config.Group{Name: "us", Region: "r"}
	of := func(replica, why string) error { return &transport.Error{URL: replica, Err: errors.New(why)} }
	var ws annotations.Annotations
	ws.Add(&lostReplicas{outcome{group: eu, asked: 3, failed: []error{of("http://b", "y")}}})
	ws.Add(&lostReplicas{outcome{group: eu, asked: 3, failed: []error{of("http://a", "x")}}})
	ws.Add(&lostReplicas{outcome{group: eu, asked: 3, failed: []error{of("http://a", "z"), of("http://b", "z")}}})
	ws.Add(&lostReplicas{outcome{group: us, asked: 2, failed: []error{of("http://c", "x")}}})
	ws.Add(errors.New("other"))
	foldLost(ws)
	warnings, infos := ws.AsStrings("", 0, 0)
	require.Equal(t, []string{"other"}, warnings)
	require.ElementsMatch(t, []string{
		`PromQL info: server group "eu" answered without a replica: http://a: x; http://b: z`,
		`PromQL info: server group "us" (region "r") answered without a replica: http://c: x`,
	}, infos)
}
