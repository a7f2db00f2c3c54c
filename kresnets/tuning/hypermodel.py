"""Fine-tuning as a Keras Tuner HyperModel: build a network with its head, and train it by the trial's recipe."""

import dataclasses

import keras
import keras_tuner

from kresnets.groups import layout
from kresnets.preprocess import preprocessing_for, set_preprocessing
from kresnets.transfer import plan as rule
from kresnets.transfer.fine_tune import fine_tune
from kresnets.transfer.labels import Labels, first_labels
from kresnets.transfer.recipe import RESOLVED, Recipe
from kresnets.tuning.space import Space


class RecipeHyperModel(keras_tuner.HyperModel):
    """Search over how a network is fine-tuned: the hyperparameters are fields of `kresnets.Recipe`.

    It works in any tuner of Keras Tuner, `tuner.search(train, validation)`; `RecipeTuner` takes less time for the same.
    What `base` leaves out is resolved once, by the data of the search and by `kresnets.plan`: `resolve`, which
    `RecipeTuner` calls when a search begins, else `fit`. Trials are variations of what `fine_tune` would run.

    Args:
        build: function without arguments that returns a model with its head on, pretrained, as `fine_tune` takes it; or
            such a model, which each trial trains a copy of.
        space: what is searched, see `Space`: dict, path of a TOML file, or None for the default. Defaults to None.
        base: what trials are variations of: a `Recipe`, or the `Plan` that `kresnets.plan` made of one. Defaults to
            None, `Recipe()`.
        epochs: epochs of a trial in all, see `Space`; a head's stage that `base` leaves to the rule is then as long, in
            proportion, as in the plan. None for as many as the plan has, where `base` leaves `epochs_per_stage` to the
            rule and the space does not name it; else each trial has as many as its recipe says. Defaults to None.
        groups: for models that are not of kresnets, an ordered dict `{group: regex}`; see `kresnets.groups`. Defaults
            to None.
        preprocess: as of `fine_tune`. Defaults to None.
        loss: as of `fine_tune`. Defaults to None.
        metrics: as of `fine_tune`. Defaults to None.
        class_weight: as of `fine_tune`. Defaults to None.
        pretrained: as of `fine_tune`. Defaults to None.
        task: as of `fine_tune`. Defaults to `"auto"`.

    Attributes:
        plan: the `Plan` of `base`, None until it is resolved.

    Raises:
        ValueError: for a space that does not fit the network; before any trial.

    Example:
        >>> import keras_tuner, kresnets
        >>> from kresnets.tuning import RecipeHyperModel
        >>> hypermodel = RecipeHyperModel(lambda: kresnets.CifarResNet20(classes=2), {"thaw": ["head", "stage3"]})
        >>> hp = keras_tuner.HyperParameters()
        >>> model = hypermodel.build(hp)
        >>> hp.values, hypermodel.recipe(hp).stages
        ({'thaw': 'head'}, ())
    """

    def __init__(
        self,
        build,
        space=None,
        base=None,
        epochs=None,
        groups=None,
        preprocess=None,
        loss=None,
        metrics=None,
        class_weight=None,
        pretrained=None,
        task="auto",
    ):
        super().__init__()
        if not callable(build) and not isinstance(build, keras.Model):
            raise ValueError(f"`build` must be a function that returns a Keras model, or a model. Received: {build!r}")
        if isinstance(base, rule.Plan):
            self.base, self.plan = base.recipe, base
        else:
            self.base, self.plan = Recipe() if base is None else base, None
        self._make, self.groups, self._pretrained = build, groups, pretrained
        self._epochs, self._declared, self._labels = epochs, False, None
        self._policy, self._distribution = keras.config.dtype_policy(), keras.distribution.distribution()
        self._training = {
            "groups": groups, "preprocess": preprocess, "loss": loss, "metrics": metrics, "class_weight": class_weight,
            "task": task,
        }  # fmt: skip
        model_layout = layout(self.make(0), groups)
        self.names = model_layout.names
        self.space = Space(space, self.names, self.base, epochs, check=model_layout.first)
        if self.plan is not None:
            self._settle()

    @property
    def leaves_out(self):
        """Whether `base` leaves something to the rule."""
        return bool(self.base.unresolved) or self.plan is not None and set(self.plan.given) < set(RESOLVED)

    def resolve(self, train, validation=None, model=None):
        """Resolve what `base` leaves out by the data, as `fine_tune` would; a `Plan` stays as it is.

        Args:
            train: as of `kresnets.plan`.
            validation: likewise. Defaults to None.
            model: the model; None to build it. Defaults to None.

        Returns:
            The `Plan`.

        Raises:
            ValueError: for a space or a number of epochs that does not fit what `base` comes to.
        """
        if self.plan is None or self.base.unresolved:
            if model is None:
                model = self._make if isinstance(self._make, keras.Model) else self.make(self.base.seed)
            self.plan = self._plan(model, train, validation, self.base)
            self._labels = first_labels(train)
            self._settle()
        return self.plan

    def _plan(self, model, train, validation, recipe):
        given = {name: self._training[name] for name in ("groups", "loss", "task") if self._training[name] is not None}
        return rule.plan(model, train, validation, recipe, pretrained=self._pretrained, **given)

    def _settle(self):
        """Put what the plan says in the place of what the space's base leaves out."""
        recipe, epochs = self.plan.recipe, self._epochs
        left = {name for name in RESOLVED if name not in self.plan.given}
        most = recipe.epochs(self.names)
        if epochs is None and "epochs_per_stage" in left and "epochs_per_stage" not in self.space.fields:
            epochs = most
        elif epochs is not None and "head_epochs" in left and recipe.head_epochs:
            fits = min(round(recipe.head_epochs * epochs / most), epochs - self.space.deepest())
            recipe = dataclasses.replace(recipe, head_epochs=max(1, fits))
        # What Keras Tuner knows already is not to change: its trials hold values of it.
        self.space = self.space.on(recipe, epochs, anew=not self._declared)

    def make(self, seed):
        """Return a model to train, its head drawn by a seed."""
        # Before each trial Keras Tuner has Keras forget the last one, and with it these two settings of the user's.
        keras.config.set_dtype_policy(self._policy)
        if self._distribution is not None:
            keras.distribution.set_distribution(self._distribution)
        keras.utils.set_random_seed(seed)
        if isinstance(self._make, keras.Model):
            model = keras.models.clone_model(self._make)
            model.set_weights(self._make.get_weights())
            return model
        model = self._make()
        if not isinstance(model, keras.Model):
            raise ValueError(f"`build` must return a Keras model. Received: {model!r}")
        return model

    def declare_hyperparameters(self, hp):
        self._declared = True
        self.space.declare(hp)

    def build(self, hp):
        self.declare_hyperparameters(hp)
        return self.ready()

    def ready(self):
        """Return a model compiled and with its preprocessing, as `build` does."""
        model, loss, metrics = self.make(self.space.base.seed), self._training["loss"], self._training["metrics"]
        # `fine_tune` does both anew; but Keras Tuner's users evaluate what `get_best_models` builds and loads.
        labels = Labels.of(model, self._labels, self._training["task"], loss)
        model.compile(
            loss=labels.loss() if loss is None else loss, metrics=labels.metrics() if metrics is None else metrics
        )
        set_preprocessing(model, preprocessing_for(model, self._training["preprocess"]))
        return model

    def training(self):
        """Return what else the score of a trial depends on, as texts: arguments of `fine_tune`, and the precision."""
        said = {name: _in_words(value) for name, value in self._training.items() if value is not None}
        return said | {"dtype": keras.config.dtype_policy().name}

    def recipe(self, hp, seed=None):
        """Return the `Recipe` of a trial; before `resolve`, with what `base` leaves out.

        Args:
            hp: its `keras_tuner.HyperParameters`.
            seed: of the recipe. Defaults to None, that of `base`.
        """
        return self.space.recipe(hp.values, seed)

    def fit(self, hp, model, train, validation=None, callbacks=(), verbose=0, epoch=None, epochs=None, initial_epoch=0):
        """Fine-tune a model by the trial's recipe; see `fine_tune` for the arguments.

        Keras Tuner's own tuners score the trial by its best epoch, whichever one the recipe keeps.

        Args:
            epochs: epoch before which to end, as Keras Tuner's Hyperband gives it. Defaults to None, the recipe's end.
            initial_epoch: that at which to begin, with the weights that the model has. Defaults to 0.

        Returns:
            A Keras `History`.
        """
        self.resolve(train, validation, model)
        if epochs is not None:
            callbacks = [_Part(initial_epoch, epochs), *callbacks]
        return self.train(
            model, self.recipe(hp), train, validation, callbacks=callbacks, verbose=verbose, epoch=epoch,
            initial_epoch=initial_epoch,
        )  # fmt: skip

    def train(
        self, model, recipe, train, validation, *, cache="auto", callbacks=(), verbose=0, epoch=None, initial_epoch=0
    ):
        """Fine-tune a model by a recipe; see `fine_tune` for the arguments, and `fit`.

        Args:
            epoch: the `kresnets.data.epoch_variable()` that `train` reads, where it does not come from `Part.batches`,
                which says so itself. Defaults to None.

        Returns:
            A Keras `History`.
        """
        if self.plan is not None:  # then nothing is left to count in the data
            recipe = rule.resolve(recipe, self.plan.facts)
        if initial_epoch:
            plan = recipe if self.plan is not None else self._plan(model, train, validation, recipe)
            recipe = dataclasses.replace(plan, begin=initial_epoch)
        if epoch is not None:
            assign = keras.callbacks.LambdaCallback(on_epoch_begin=lambda number, logs: epoch.assign(number))
            callbacks = [assign, *callbacks]
        return fine_tune(
            model, train, validation, recipe, cache=cache, callbacks=callbacks, verbose=verbose, **self._training
        )


def _in_words(value):
    """Say a loss, metric or other argument so that the same one is said alike in another process."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_in_words, value))
    if hasattr(value, "get_config"):
        return f"{type(value).__name__}({value.get_config()})"
    return getattr(value, "__qualname__", None) or str(value)


class _Part(keras.callbacks.Callback):
    """Train the epochs from `first` on and before `end`; the rates are those of these epochs."""

    def __init__(self, first, end):
        super().__init__()
        self._first, self._end = first, end

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._first:
            self.model.optimizer.iterations.assign(epoch * self.params["steps"])

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 >= self._end:
            self.model.stop_training = True
