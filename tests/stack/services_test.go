//go:build linux || darwin

package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	plog "github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// alive asks the kernel, not the package under test.
func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func pulsarClient(t *testing.T, o pulsar.ClientOptions) pulsar.Client {
	t.Helper()
	o.Logger = plog.NewLoggerWithSlog(slog.New(slog.DiscardHandler))
	c, err := pulsar.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// noTimeout: the goroutine that watches a producer's send timeout outlives the producer in the client's v0.21.
const noTimeout = -1

func produce(t *testing.T, c pulsar.Client, topic string, from, to int) {
	t.Helper()
	p, err := c.CreateProducer(pulsar.ProducerOptions{Topic: topic, SendTimeout: noTimeout})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for i := from; i < to; i++ {
		_, err := p.Send(t.Context(), &pulsar.ProducerMessage{Payload: []byte(fmt.Sprint("message ", i)), Key: fmt.Sprint("key ", i)})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// readBack returns what n messages of the topic say, by message.
func readBack(t *testing.T, c pulsar.Client, topic string, n int) map[string]int {
	t.Helper()
	consumer, err := c.Subscribe(pulsar.ConsumerOptions{Topic: topic, SubscriptionName: "test-" + fmt.Sprint(time.Now().UnixNano()),
		SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest})
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	got := map[string]int{}
	for range n {
		m, err := consumer.Receive(ctx)
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(got), n, err)
		}
		got[m.Key()+": "+string(m.Payload())]++
	}
	return got
}

func checkMessages(t *testing.T, got map[string]int, n int) {
	t.Helper()
	for i := range n {
		if want := fmt.Sprintf("key %d: message %d", i, i); got[want] != 1 {
			t.Errorf("%q read %d times, want once", want, got[want])
		}
	}
}

func TestPulsarKeepsPartitionedMessages(t *testing.T) {
	p := SharedPulsar(t)
	if err := p.CreatePartitionedTopic(t.Context(), "public/default/round-trip", 4); err != nil {
		t.Fatal(err)
	}
	c := pulsarClient(t, pulsar.ClientOptions{URL: p.ServiceURL()})
	partitions, err := c.TopicPartitions("public/default/round-trip")
	if err != nil || len(partitions) != 4 {
		t.Fatalf("partitions: %v, %v", partitions, err)
	}
	produce(t, c, "public/default/round-trip", 0, 50)
	checkMessages(t, readBack(t, c, "public/default/round-trip", 50), 50)
}

func TestPulsarIsSharedWithinTheProcess(t *testing.T) {
	if a, b := SharedPulsar(t), SharedPulsar(t); a != b || a.PID() == 0 {
		t.Errorf("two instances: %d and %d", a.PID(), b.PID())
	}
}

func TestAdminTellsWhatTheBrokerRefuses(t *testing.T) {
	p := SharedPulsar(t)
	_, err := p.Admin(t.Context(), "GET", "/admin/v2/namespaces/public/nowhere", nil)
	if refused, ok := errors.AsType[*AdminError](err); !ok || refused.Status != 404 {
		t.Errorf("error %v, want an AdminError with status 404", err)
	}
	if err := p.CreatePartitionedTopic(t.Context(), "just-a-name", 1); err == nil || !strings.Contains(err.Error(), "tenant/namespace/name") {
		t.Errorf("error %v, want one that says how to write a topic", err)
	}
	if err := p.CreateNamespace(t.Context(), "public/settings"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Admin(t.Context(), "POST", "/admin/v2/namespaces/public/settings/deduplication", true); err != nil {
		t.Error(err)
	}
}

// The largest message used to cut the connection between broker and bookie for ever.
func TestPulsarTakesTheLargestMessage(t *testing.T) {
	p := SharedPulsar(t)
	c := pulsarClient(t, pulsar.ClientOptions{URL: p.ServiceURL()})
	topic := "public/default/large"
	producer, err := c.CreateProducer(pulsar.ProducerOptions{Topic: topic, SendTimeout: noTimeout, DisableBatching: true})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	large := make([]byte, 5<<20-1<<10)
	if _, err := producer.Send(t.Context(), &pulsar.ProducerMessage{Payload: large}); err != nil {
		t.Fatal(err)
	}
	r, err := c.CreateReader(pulsar.ReaderOptions{Topic: topic, StartMessageID: pulsar.EarliestMessageID()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if m, err := r.Next(t.Context()); err != nil || len(m.Payload()) != len(large) {
		t.Errorf("read back: %v", err)
	}
}

func TestPulsarKeepsMessagesOverKillAndStop(t *testing.T) {
	p := Pulsar(t)
	topic := "public/default/restarts"
	if err := p.CreatePartitionedTopic(t.Context(), topic, 2); err != nil {
		t.Fatal(err)
	}
	address := p.ServiceURL()
	for round, end := range []func(){p.Kill, p.Stop} {
		c := pulsarClient(t, pulsar.ClientOptions{URL: p.ServiceURL()})
		produce(t, c, topic, 20*round, 20*round+20)
		c.Close()
		pid := p.PID()
		end()
		if alive(pid) || p.Running() || p.PID() != 0 {
			t.Fatalf("process %d lives on", pid)
		}
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if p.ServiceURL() != address {
		t.Errorf("address changed from %s to %s", address, p.ServiceURL())
	}
	c := pulsarClient(t, pulsar.ClientOptions{URL: p.ServiceURL()})
	checkMessages(t, readBack(t, c, topic, 40), 40)
}

func TestSecurePulsarKnowsItsClients(t *testing.T) {
	p := PulsarWith(t, PulsarOptions{Secure: true, Conf: map[string]string{"maxMessageSize": "1048576"}})
	s := p.Security()
	admin := pulsarClient(t, pulsar.ClientOptions{URL: p.ServiceURLTLS(), TLSTrustCertsFilePath: s.CAFile, TLSValidateHostname: true,
		Authentication: pulsar.NewAuthenticationTokenFromFile(s.TokenFile)})
	produce(t, admin, "public/default/secure", 0, 3)

	nobody := pulsarClient(t, pulsar.ClientOptions{URL: p.ServiceURL(), Authentication: pulsar.NewAuthenticationToken(s.Token("nobody"))})
	_, err := nobody.CreateProducer(pulsar.ProducerOptions{Topic: "public/default/secure", SendTimeout: noTimeout})
	if err == nil || !strings.Contains(err.Error(), "AuthorizationError") {
		t.Errorf("a role without rights got: %v", err)
	}
	answer, err := client.Get(p.AdminURL() + "/admin/v2/namespaces/public/default")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 401 {
		t.Errorf("status %d without a token, want 401", answer.StatusCode)
	}
	conf, err := p.Admin(t.Context(), "GET", "/admin/v2/brokers/configuration/runtime", nil)
	if err != nil || !strings.Contains(string(conf), `"maxMessageSize":"1048576"`) {
		t.Errorf("the added setting is not in force: %v", err)
	}
}

func createTable(t *testing.T, c *dynamodb.Client, name string) {
	t.Helper()
	_, err := c.CreateTable(t.Context(), &dynamodb.CreateTableInput{TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("leaseKey"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("leaseKey"), KeyType: types.KeyTypeHash}}})
	if err != nil {
		t.Fatal(err)
	}
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func TestDynamoDBUpdatesConditionally(t *testing.T) {
	c := SharedDynamoDB(t).Client()
	createTable(t, c, "conditional")
	take := func(from, to string) error {
		_, err := c.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: aws.String("conditional"),
			Key:                                 map[string]types.AttributeValue{"leaseKey": text("shard-1")},
			UpdateExpression:                    aws.String("SET leaseOwner = :to"),
			ConditionExpression:                 aws.String("attribute_not_exists(leaseOwner) OR leaseOwner = :from"),
			ExpressionAttributeValues:           map[string]types.AttributeValue{":from": text(from), ":to": text(to)},
			ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld})
		return err
	}
	if err := take("nobody", "a"); err != nil {
		t.Fatal(err)
	}
	if err := take("a", "b"); err != nil {
		t.Fatal(err)
	}
	refused, ok := errors.AsType[*types.ConditionalCheckFailedException](take("a", "c"))
	if !ok {
		t.Fatal("the condition did not hold, and the update went through")
	}
	if owner, ok := refused.Item["leaseOwner"].(*types.AttributeValueMemberS); !ok || owner.Value != "b" {
		t.Errorf("the refused update returned %v, want the item with owner b", refused.Item)
	}
}

func tables(t *testing.T, c *dynamodb.Client) int {
	t.Helper()
	list, err := c.ListTables(t.Context(), &dynamodb.ListTablesInput{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.TableNames)
}

func TestPersistentDynamoDBKeepsTablesOverKillAndStop(t *testing.T) {
	d := DynamoDBWith(t, DynamoDBOptions{Persistent: true})
	createTable(t, d.Client(), "kept")
	for _, end := range []func(){d.Kill, d.Stop} {
		end()
		if err := d.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := tables(t, d.Client()); n != 1 {
			t.Errorf("%d tables after a restart, want the one that was there", n)
		}
	}
}

func TestDynamoDBInMemoryPausesAndForgets(t *testing.T) {
	d := DynamoDB(t)
	createTable(t, d.Client(), "forgotten")
	d.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := d.probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused service: %v, want no answer", err)
	}
	d.Resume()
	if n := tables(t, d.Client()); n != 1 {
		t.Errorf("%d tables after a pause, want the one that was there", n)
	}
	d.Pause()
	d.Kill()
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := tables(t, d.Client()); n != 0 {
		t.Errorf("%d tables after a restart: memory should be empty", n)
	}
}

// TestCrashedParentLeavesNoService runs this test in a process of its own, which starts a service and dies hard.
func TestCrashedParentLeavesNoService(t *testing.T) {
	const asChild = "STACK_TEST_CRASH"
	if os.Getenv(asChild) != "" {
		d, err := StartDynamoDB(t.Context(), DynamoDBOptions{})
		checkStarted(t, err)
		fmt.Printf("service %d %s\n", d.PID(), d.scratch.dir)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	skipUnlessAvailable(t, dynamoDBJars)
	if _, err := dynamoDBJars.fetch(t.Context(), nil); err != nil {
		checkStarted(t, err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestCrashedParentLeavesNoService$")
	child.Env = append(os.Environ(), asChild+"=1")
	out, _ := child.Output()
	var pid int
	var dir string
	if _, err := fmt.Sscanf(string(out), "service %d %s", &pid, &dir); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	// The kernel kills at once; reaping by the adopting process may take a moment.
	for deadline := time.Now().Add(time.Minute); alive(pid) && !zombie(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlived the one that started it", pid)
		}
	}
	removeAbandoned(os.TempDir())
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s of a dead process was not removed: %v", dir, err)
	}
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}
