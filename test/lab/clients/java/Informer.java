import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.client.Config;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.informers.ResourceEventHandler;
import java.io.File;

/** fabric8's shared informer. */
public class Informer {
  public static void main(String[] args) throws Exception {
    var client = new KubernetesClientBuilder().withConfig(Config.fromKubeconfig(new File(args[0]))).build();
    client.pods().inNamespace("shop").inform(new ResourceEventHandler<Pod>() {
      public void onAdd(Pod pod) { say("add", pod); }
      public void onUpdate(Pod before, Pod pod) { say("update", pod); }
      public void onDelete(Pod pod, boolean isUnknown) { say("delete", pod); }
    });
    Thread.currentThread().join();
  }

  static void say(String verb, Pod pod) {
    var labels = pod.getMetadata().getLabels();
    System.out.println(verb + " " + pod.getMetadata().getName() + " " + (labels == null ? "" : labels.getOrDefault("step", "")));
  }
}
