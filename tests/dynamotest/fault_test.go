package dynamotest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

func noRetry(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} }

// onFakes runs the test in process, in a bubble with fake time, and over HTTP in real time.
func onFakes(t *testing.T, test func(t *testing.T, db *dynamotest.DB, c client), opts ...dynamotest.Option) {
	t.Run("in process", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			db := dynamotest.New(opts...)
			defer db.Close()
			test(t, db, db.API(noRetry))
		})
	})
	t.Run("direct", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			db := dynamotest.New(opts...)
			defer db.Close()
			test(t, db, db.Direct(nil))
		})
	})
	t.Run("http", func(t *testing.T) {
		server := dynamotest.NewServer(opts...)
		defer server.Close()
		test(t, server.DB, server.Client(noRetry))
	})
}

const leases = "leases"

func increment(ctx context.Context, c client, key string) error {
	_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: aws.String(leases), Key: lease(key),
		UpdateExpression: aws.String("ADD n :one"), ExpressionAttributeValues: item{":one": n(1)}})
	return err
}

func createLeases(t *testing.T, db *dynamotest.DB, c client) {
	t.Helper()
	if _, err := c.CreateTable(t.Context(), leaseTable(leases)); err != nil {
		t.Fatal(err)
	}
	db.Put(leases, item{"leaseKey": s("a"), "n": n(0)})
}

func TestFaultKinds(t *testing.T) {
	for _, row := range []struct {
		kind    dynamotest.Kind
		want    string // the error's code, or a part of its text
		applied string
		givesUp bool // the client cancels as soon as the request has arrived
	}{
		{dynamotest.Throttle, "ProvisionedThroughputExceededException", "0", false},
		{dynamotest.Throttling, "ThrottlingException", "0", false},
		{dynamotest.InternalError, "InternalServerError", "0", false},
		{dynamotest.AppliedInternalError, "InternalServerError", "1", false},
		{dynamotest.AccessDenied, "AccessDeniedException", "0", false},
		{dynamotest.InvalidCredentials, "UnrecognizedClientException", "0", false},
		{dynamotest.UnknownOperation, "UnknownOperationException", "0", false},
		{dynamotest.LoseRequest, "EOF", "0", false},
		{dynamotest.LoseAnswer, "EOF", "1", false},
		{dynamotest.Delay, "ok", "1", false},
		{dynamotest.SlowAnswer, "ok", "1", false},
		{dynamotest.LateWrite, "ok", "1", false},
		{dynamotest.Delay, "context canceled", "0", true},
		{dynamotest.SlowAnswer, "context canceled", "1", true},
		{dynamotest.LateWrite, "context canceled", "1", true},
		{dynamotest.Hang, "context canceled", "0", true},
		{dynamotest.HangAnswer, "context canceled", "1", true},
	} {
		name := fmt.Sprintf("kind %d, %s, applied %s", row.kind, row.want, row.applied)
		t.Run(name, func(t *testing.T) {
			onFakes(t, func(t *testing.T, db *dynamotest.DB, c client) {
				createLeases(t, db, c)
				applied := make(chan struct{}, 2)
				db.OnChange(func(dynamotest.Change) { applied <- struct{}{} })
				fault := dynamotest.Fault{Operation: "UpdateItem", Key: "a", Kind: row.kind}
				switch {
				case row.kind == dynamotest.LateWrite, row.kind == dynamotest.Delay && !row.givesUp, row.kind == dynamotest.SlowAnswer && !row.givesUp:
					fault.Delay = 20 * time.Millisecond
				case row.kind == dynamotest.Delay, row.kind == dynamotest.SlowAnswer:
					fault.Delay = time.Hour // ends with the client
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				met := make(chan struct{})
				fault.When = func(dynamotest.Request) bool {
					if close(met); row.givesUp {
						cancel()
					}
					return true
				}
				injected := db.Inject(fault)
				err := increment(ctx, c, "a")
				if got := code(err); got != row.want && !strings.Contains(got, row.want) {
					t.Errorf("got %v, want %s", err, row.want)
				}
				<-met
				if row.applied == "1" {
					<-applied // a late write may come after its author gave up
				}
				wantText(t, "applied", showValue(db.Item(leases, lease("a"))["n"]), row.applied)
				if hits := injected.Hits(); hits != 1 {
					t.Errorf("hits: %d", hits)
				}
				wantCode(t, "the next request", increment(t.Context(), c, "a"), yes)
			})
		})
	}
}

func TestFaultsMatchWhatTheyName(t *testing.T) {
	onFakes(t, func(t *testing.T, db *dynamotest.DB, c client) {
		createLeases(t, db, c)
		throttled := func(what string, want bool, key string) {
			t.Helper()
			if got := code(increment(t.Context(), c, key)) != yes; got != want {
				t.Errorf("%s: throttled %v, want %v", what, got, want)
			}
		}
		f := db.Inject(dynamotest.Fault{Operation: "UpdateItem", Key: "b", Skip: 1, Count: 2, Kind: dynamotest.Throttle})
		throttled("another key", false, "a")
		throttled("skipped", false, "b")
		throttled("first hit", true, "b")
		throttled("second hit", true, "b")
		throttled("used up", false, "b")
		if f.Hits() != 2 {
			t.Errorf("hits: %d", f.Hits())
		}
		f = db.Inject(dynamotest.Fault{Table: leases, Count: -1, Kind: dynamotest.Throttle, When: func(r dynamotest.Request) bool {
			return r.Update == "ADD n :one" && showValue(r.Values[":one"]) == "1"
		}})
		throttled("for ever", true, "a")
		throttled("for ever", true, "a")
		f.Remove()
		throttled("removed", false, "a")
		db.Inject(dynamotest.Fault{Operation: "PutItem", Key: "x", Kind: dynamotest.Throttle})
		put := func(it item) string {
			_, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(leases), Item: it})
			return code(err)
		}
		wantText(t, "a put whose other attribute has the key's value", put(item{"leaseKey": s("y"), "other": s("x")}), yes)
		wantText(t, "a put of the key", put(lease("x")), "ProvisionedThroughputExceededException")
		var seen []string
		db.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
			seen = append(seen, r.Operation+" "+show(r.Key))
			return &dynamotest.Fault{Kind: dynamotest.AccessDenied}
		})
		wantCode(t, "hook", increment(t.Context(), c, "a"), "AccessDeniedException")
		db.OnRequest(nil)
		wantCode(t, "hook removed", increment(t.Context(), c, "a"), yes)
		wantText(t, "seen by the hook", fmt.Sprint(seen), `[UpdateItem {leaseKey:"a"}]`)
	})
}

// The SDK's own retry hides a lost answer from its caller: the write is sent again and meets its own effect.
func TestRetryOfALostAnswerMeetsItsOwnWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New()
		defer db.Close()
		c := db.API() // with the SDK's retries
		createLeases(t, db, c)
		db.Inject(dynamotest.Fault{Operation: "UpdateItem", Kind: dynamotest.LoseAnswer})
		_, err := c.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: aws.String(leases), Key: lease("a"),
			UpdateExpression: aws.String("SET n = :next"), ConditionExpression: aws.String("n = :n"), ExpressionAttributeValues: item{":n": n(0), ":next": n(1)},
			ReturnValuesOnConditionCheckFailure: "ALL_OLD"})
		wantCode(t, "the retry", err, no)
		wantText(t, "what stood against it", show(oldItem(err)), `{leaseKey:"a" n:1}`)
		wantText(t, "cost: both tries, the failed condition too", fmt.Sprintf("%+v", db.Counts()["UpdateItem"]), "{Requests:2 Failures:1 Lost:1 CapacityUnits:2}")
	})
}

func TestStopAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New()
		defer db.Close()
		c := db.API(noRetry)
		createLeases(t, db, c)
		db.Stop()
		if err := increment(t.Context(), c, "a"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("while stopped: %v", err)
		}
		db.Restart()
		wantCode(t, "after the restart", increment(t.Context(), c, "a"), yes)
	})
	server := dynamotest.NewServer()
	defer server.Close()
	c := server.Client(noRetry)
	createLeases(t, server.DB, c)
	hanging := make(chan error, 1)
	arrived := make(chan struct{})
	server.Inject(dynamotest.Fault{Operation: "UpdateItem", Kind: dynamotest.Hang, When: func(dynamotest.Request) bool { close(arrived); return true }})
	go func() { hanging <- increment(context.Background(), c, "a") }()
	<-arrived
	server.Stop()
	if err := <-hanging; err == nil {
		t.Error("a request that hung when the server stopped was answered")
	}
	if err := increment(t.Context(), c, "a"); err == nil {
		t.Error("a stopped server answered")
	}
	server.Restart()
	wantCode(t, "same port, same client", increment(t.Context(), c, "a"), yes)
	wantText(t, "same data", show(server.Item(leases, lease("a"))), `{leaseKey:"a" n:1}`)
}

func TestCloseEndsHangingRequests(t *testing.T) {
	db := dynamotest.New()
	c := db.API(noRetry)
	createLeases(t, db, c)
	arrived := make(chan struct{})
	db.OnRequest(func(dynamotest.Request) *dynamotest.Fault {
		close(arrived)
		return &dynamotest.Fault{Kind: dynamotest.HangAnswer}
	})
	done := make(chan error, 1)
	go func() { done <- increment(context.Background(), c, "a") }()
	<-arrived
	db.Close()
	db.Close()
	if err := <-done; err == nil {
		t.Error("answered")
	}
	if err := increment(t.Context(), c, "a"); err == nil {
		t.Error("a closed DB answered")
	}
}

func TestTablePhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New(dynamotest.WithCreateDelay(5*time.Second), dynamotest.WithDeleteDelay(5*time.Second))
		defer db.Close()
		c := db.API(noRetry)
		status := func() string {
			out, err := c.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(leases)})
			if err != nil {
				return code(err)
			}
			return string(out.Table.TableStatus)
		}
		create := func() error { _, err := c.CreateTable(t.Context(), leaseTable(leases)); return err }
		remove := func() error {
			_, err := c.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: aws.String(leases)})
			return err
		}
		wantCode(t, "create", create(), yes)
		wantText(t, "status", status(), "CREATING")
		wantCode(t, "a write to a table that is being created", increment(t.Context(), c, "a"), "ResourceNotFoundException")
		wantCode(t, "deleting it already", remove(), "ResourceInUseException")
		start := time.Now()
		if err := dynamodb.NewTableExistsWaiter(c).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(leases)}, time.Minute); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited < 5*time.Second {
			t.Errorf("ACTIVE after %v", waited)
		}
		wantCode(t, "a write", increment(t.Context(), c, "a"), yes)
		wantCode(t, "delete", remove(), yes)
		wantText(t, "status", status(), "DELETING")
		wantCode(t, "a write to a table that is being deleted", increment(t.Context(), c, "a"), "ResourceNotFoundException")
		wantCode(t, "creating it again already", create(), "ResourceInUseException")
		time.Sleep(5 * time.Second)
		wantText(t, "status", status(), "ResourceNotFoundException")
		wantCode(t, "creating it again", create(), yes)
	})
}

func TestStaleReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New()
		defer db.Close()
		c := db.API(noRetry)
		createLeases(t, db, c)
		counters := func(consistent bool) string {
			out, err := c.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String(leases), ConsistentRead: &consistent})
			if err != nil {
				t.Fatal(err)
			}
			byKey := item{}
			for _, it := range out.Items {
				byKey[strings.Trim(showValue(it["leaseKey"]), `"`)] = it["n"]
			}
			got, err := c.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String(leases), Key: lease("a"), ConsistentRead: &consistent})
			if err != nil {
				t.Fatal(err)
			}
			if a, ok := byKey["a"]; ok && showValue(a) != showValue(got.Item["n"]) {
				t.Errorf("Scan and GetItem see different states: %s, %s", show(byKey), show(got.Item))
			}
			return show(byKey)
		}
		write := func(key string) {
			t.Helper()
			wantCode(t, key, increment(t.Context(), c, key), yes)
		}
		db.SetReadLag(3 * time.Second)
		write("a")
		time.Sleep(2 * time.Second)
		write("a")
		write("b")
		wantText(t, "consistent", counters(true), "{a:2 b:1}")
		wantText(t, "3 s ago", counters(false), "{a:0}")
		time.Sleep(time.Second)
		wantText(t, "a second later", counters(false), "{a:1}")
		db.DeleteItem(leases, lease("b"))
		time.Sleep(2 * time.Second)
		wantText(t, "a deleted item", counters(false), "{a:2 b:1}")
		time.Sleep(time.Second)
		wantText(t, "gone at last", counters(false), "{a:2}")
		db.SetReadLag(0)

		thaw := db.FreezeReads(leases)
		write("a")
		write("c")
		wantText(t, "frozen", counters(false), "{a:2}")
		wantText(t, "consistent all the same", counters(true), "{a:3 c:1}")
		thaw()
		wantText(t, "thawed", counters(false), "{a:3 c:1}")
	})
}

func TestOptions(t *testing.T) {
	t.Run("clock", func(t *testing.T) {
		moment := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
		onFakes(t, func(t *testing.T, db *dynamotest.DB, c client) {
			out, err := c.CreateTable(t.Context(), leaseTable(leases))
			if err != nil {
				t.Fatal(err)
			}
			if !out.TableDescription.CreationDateTime.Equal(moment) {
				t.Errorf("created at %v", out.TableDescription.CreationDateTime)
			}
			if at, ok := awsmiddleware.GetServerTime(out.ResultMetadata); !ok || !at.Equal(moment) {
				t.Errorf("Date header: %v", at)
			}
		}, dynamotest.WithClock(func() time.Time { return moment }))
	})
	t.Run("no ALL_OLD", func(t *testing.T) {
		onFakes(t, func(t *testing.T, db *dynamotest.DB, c client) {
			createLeases(t, db, c)
			_, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(leases), Item: lease("a"), ConditionExpression: aws.String("attribute_not_exists(leaseKey)"), ReturnValuesOnConditionCheckFailure: "ALL_OLD"})
			if wantCode(t, "put", err, no); oldItem(err) != nil {
				t.Errorf("item %s", show(oldItem(err)))
			}
		}, dynamotest.WithoutOldItemOnFailure())
	})
	t.Run("backups and tags", func(t *testing.T) {
		onFakes(t, func(t *testing.T, db *dynamotest.DB, c client) {
			createLeases(t, db, c)
			out, err := c.DescribeContinuousBackups(t.Context(), &dynamodb.DescribeContinuousBackupsInput{TableName: aws.String(leases)})
			if err != nil || out.ContinuousBackupsDescription.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus != "DISABLED" {
				t.Errorf("%v, %v", out, err)
			}
			d, err := c.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(leases)})
			if err != nil {
				t.Fatal(err)
			}
			tags, err := c.ListTagsOfResource(t.Context(), &dynamodb.ListTagsOfResourceInput{ResourceArn: d.Table.TableArn})
			if err != nil || len(tags.Tags) != 0 {
				t.Errorf("%v, %v", tags, err)
			}
		}, dynamotest.WithBackupsAndTags())
	})
}

func TestDirectAccess(t *testing.T) {
	db := dynamotest.New()
	defer db.Close()
	c := db.API()
	createLeases(t, db, c)
	var changes []string
	db.OnChange(func(ch dynamotest.Change) {
		changes = append(changes, fmt.Sprintf("%s %s>%s", ch.Operation, show(ch.Old), show(ch.New)))
	})
	db.Put(leases, item{"leaseKey": s("0"), "n": n("1.50")})
	if err := increment(t.Context(), c, "0"); err != nil {
		t.Fatal(err)
	}
	db.DeleteItem(leases, lease("0"))
	wantText(t, "changes in order", strings.Join(changes, "; "), ` {}>{leaseKey:"0" n:1.5}; UpdateItem {leaseKey:"0" n:1.5}>{leaseKey:"0" n:2.5};  {leaseKey:"0" n:2.5}>{}`)
	db.Put(leases, lease("0"))
	items := db.Items(leases)
	items[1]["n"] = n(99) // a copy
	wantText(t, "sorted by key", show(db.Items(leases)[0])+" "+show(db.Items(leases)[1]), `{leaseKey:"0"} {leaseKey:"a" n:0}`)
	defer func() {
		if recover() == nil {
			t.Error("an item without key was put")
		}
	}()
	db.Put(leases, item{"n": n(1)})
}
