import java.lang.reflect.Field;
import org.eclipse.jetty.server.Connector;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import software.amazon.dynamodb.services.local.main.ServerRunner;
import software.amazon.dynamodb.services.local.server.DynamoDBProxyServer;

/**
 * DynamoDB Local on 127.0.0.1. Its own main class listens on every interface and has no option for that, so this one
 * sets the address of the web server inside it before it starts. Takes the same arguments.
 */
public final class LoopbackDynamoDB {
  public static void main(String[] arguments) throws Exception {
    DynamoDBProxyServer dynamo = ServerRunner.createServerFromCommandLineArgs(arguments);
    Field inner = DynamoDBProxyServer.class.getDeclaredField("server");
    inner.setAccessible(true);
    for (Connector connector : ((Server) inner.get(dynamo)).getConnectors()) {
      ((ServerConnector) connector).setHost("127.0.0.1");
    }
    // A database on disk is whole only after a stop in good order.
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      try {
        dynamo.stop();
      } catch (Exception e) {
        e.printStackTrace();
      }
    }));
    dynamo.start();
    dynamo.join();
  }
}
