// Command fetch downloads the services that the tests and the demo run, so that neither has to wait for it:
//
//	go run ./tests/stack/fetch
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := stack.Fetch(ctx, func(text string) { fmt.Println(text) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("the jars of Apache Pulsar and DynamoDB Local are in place")
}
