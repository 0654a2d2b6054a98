//go:build !race

package toxics

import "time"

const (
	// groupTimeout bounds a request to a server, queryTimeout a query.
	groupTimeout = 2 * time.Second
	queryTimeout = 4 * time.Second
	// slack is how much later an answer may come, on a machine that has much else to do.
	slack = 1500 * time.Millisecond
	// atOnce is how many cells of the matrix are tried at once. They mostly wait.
	atOnce = 8
)
