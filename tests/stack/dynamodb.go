package stack

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/wholebody"
)

// DynamoDBOptions say how DynamoDB Local is run. The zero value is right for most.
type DynamoDBOptions struct {
	// Persistent keeps the tables on disk, so that they are still there after a stop or a kill and a new start.
	// Without it they live in memory and go with the process.
	Persistent bool

	// Progress, when not nil, is told what takes long, before it begins.
	Progress func(string)
}

// DynamoDBService is a running DynamoDB Local. All access key ids (letters and digits only) and all regions see the same
// tables.
type DynamoDBService struct {
	*Service
}

// StartDynamoDB fetches DynamoDB Local when it is not cached, starts it, and waits until it answers. ctx bounds
// that, not the life of the service: Close ends it. Errors are ErrUnavailable when it cannot run on this machine.
func StartDynamoDB(ctx context.Context, o DynamoDBOptions) (*DynamoDBService, error) {
	lib, err := dynamoDBJars.fetch(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	java, err := findJava()
	if err != nil {
		return nil, err
	}
	s, err := open("DynamoDB Local", 1)
	if err != nil {
		return nil, err
	}
	d := &DynamoDBService{Service: s}
	storage := []string{"-inMemory"}
	if o.Persistent {
		storage = []string{"-dbPath", s.scratch.dir}
	}
	s.command = func() *exec.Cmd {
		args := append([]string{"-port", fmt.Sprint(s.ports.ports[0]), "-sharedDb", "-disableTelemetry"}, storage...)
		// The first compiler tier halves the processor time of a start, and a test is over before the second pays.
		return s.java(java, []string{"-Xmx256m", "-XX:TieredStopAtLevel=1"}, lib.classPath(), "LoopbackDynamoDB", args...)
	}
	s.probe = func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL(), nil)
		if err != nil {
			return err
		}
		// An unsigned request is refused; that it is answered at all is the sign of life.
		answer, err := client.Do(req)
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}
	if err := s.Start(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return d, nil
}

// URL returns the endpoint: http://127.0.0.1:port. It stays the same over restarts.
func (d *DynamoDBService) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", d.ports.ports[0]) }

// Client returns an SDK client for the service, region us-east-1, with the SDK's default retries.
func (d *DynamoDBService) Client() *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(d.URL()),
		Credentials:  credentials.NewStaticCredentialsProvider("local", "local", ""),
		// A service as near as this one answers before the SDK is done with its request, which costs connections.
		HTTPClient: &http.Client{Transport: wholebody.Transport(http.DefaultTransport)},
	})
}
