"""The optimisers' arithmetic on the device, by the equations that PopART and PopTorch document.

Each function takes a weight, its gradient, its state (a dict, empty at first) and the values of its group; it changes
weight and state in place.
"""

import torch


def kept(state, name, like, dtype, fill=0.0):
    """Return one state tensor in float32, and make it first where there is none."""
    if name not in state:
        state[name] = torch.full_like(like, fill, dtype=dtype)
    return state[name].float()


def sgd(weight, grad, state, values, attributes):
    """v <- m v + (1 - d)(g + wd w);  w <- w - lr v. Without momentum there is no v."""
    grad = grad + values["weight_decay"] * weight
    if values["momentum"] or not values.constant("momentum"):
        dtype = attributes["velocity_accum_type"]
        velocity = kept(state, "velocity", weight, dtype)
        velocity = values["momentum"] * velocity + (1 - values["dampening"]) * grad
        state["velocity"] = velocity.to(dtype)
        grad = state["velocity"].float()
    weight -= values["lr"] * grad


def adam(weight, grad, state, values, attributes, decoupled=False):
    """Kingma and Ba 2015, algorithm 1; decoupled: Loshchilov and Hutter 2019, algorithm 2."""
    if not decoupled:
        grad = grad + values["weight_decay"] * weight
    step = moments(weight, grad, state, values, attributes)
    if decoupled:
        step = step + values["weight_decay"] * weight
    weight -= values["lr"] * step


def adamw(weight, grad, state, values, attributes):
    """Adam with the decay apart from the gradient."""
    adam(weight, grad, state, values, attributes, decoupled=True)


def lamb(weight, grad, state, values, attributes):
    """You et al. 2020, algorithm 2, with phi(z) = min(z, max_weight_norm)."""
    step = moments(weight, grad, state, values, attributes) + values["weight_decay"] * weight
    norm, length = weight.norm().clamp(max=values["max_weight_norm"]), step.norm()
    trust = norm / length if norm > 0 and length > 0 else 1.0
    weight -= values["lr"] * trust * step


def moments(weight, grad, state, values, attributes):
    """Advance both moments and return m / (sqrt(v) + eps), corrected for the bias of their start where asked."""
    first_type, second_type = (
        attributes["first_order_momentum_accum_type"],
        attributes["second_order_momentum_accum_type"],
    )
    beta1, beta2 = values["betas"]
    first = beta1 * kept(state, "first", weight, first_type) + (1 - beta1) * grad
    second = beta2 * kept(state, "second", weight, second_type) + (1 - beta2) * grad * grad
    state["first"], state["second"] = first.to(first_type), second.to(second_type)
    state["step"] = step = state.get("step", torch.zeros(())) + 1
    if attributes.get("bias_correction", True):
        first, second = first / (1 - beta1**step), second / (1 - beta2**step)
    return first / (second.sqrt() + values["eps"])


def rmsprop(weight, grad, state, values, attributes):
    """Hinton 2012, lecture 6; use_tf_variant starts the average at one, and takes eps into the root and lr into v."""
    variant = attributes["use_tf_variant"]
    second_type = attributes["second_order_momentum_accum_type"]
    alpha, lr, eps = values["alpha"], values["lr"], values["eps"]
    grad = grad + values["weight_decay"] * weight
    square = alpha * kept(state, "square", weight, second_type, float(variant)) + (1 - alpha) * grad * grad
    state["square"] = square.to(second_type)
    if values["centered"]:
        first_type = attributes["first_order_momentum_accum_type"]
        mean = alpha * kept(state, "mean", weight, first_type) + (1 - alpha) * grad
        state["mean"] = mean.to(first_type)
        square = square - mean * mean
    step = grad / ((square + eps).sqrt() if variant else square.sqrt() + eps)
    step = lr * step if variant else step
    if values["momentum"] or not values.constant("momentum"):
        state["velocity"] = step = values["momentum"] * kept(state, "velocity", weight, torch.float32) + step
    weight -= step if variant else lr * step


def clip(grads, limit):
    """Scale the gradients down to a joint norm of `limit`, where that is finite."""
    if limit == float("inf"):
        return
    norm = torch.sqrt(sum(grad.square().sum() for grad in grads))
    for grad in grads:
        grad *= limit / torch.clamp(norm, min=limit)
